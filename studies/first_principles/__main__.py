from mechsub import lab
from studies.first_principles import study

if __name__ == "__main__":
    lab.main(study)
