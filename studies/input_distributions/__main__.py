from mechsub.lab import study
from studies.input_distributions import Config, plot, run, table

if __name__ == "__main__":
    study.main(Config, run, plot, table)
