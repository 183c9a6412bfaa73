from mechsub import lab
from studies.train_organism import study

if __name__ == "__main__":
    lab.main(study)
