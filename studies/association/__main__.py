from mechsub.lab import study
from studies.association import Config, plot, run, table

if __name__ == "__main__":
    study.main(Config, run, plot, table)
