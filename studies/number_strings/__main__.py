from mechsub import lab
from studies.number_strings import study

if __name__ == "__main__":
    lab.main(study)
