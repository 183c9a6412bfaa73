from mechsub.lab import study
from studies.mechanism import Config, plot, run, table

if __name__ == "__main__":
    study.main(Config, run, plot, table)
