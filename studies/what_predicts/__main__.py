from mechsub import lab
from studies.what_predicts import study

if __name__ == "__main__":
    lab.main(study)
