from mechsub import lab
from studies.mechanism import study

if __name__ == "__main__":
    lab.main(study)
