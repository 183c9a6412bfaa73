from mechsub import lab
from studies.input_distributions import study

if __name__ == "__main__":
    lab.main(study)
