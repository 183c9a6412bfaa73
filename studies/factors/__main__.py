from mechsub import lab
from studies.factors import study

if __name__ == "__main__":
    lab.main(study)
