from mechsub import lab
from studies.association import study

if __name__ == "__main__":
    lab.main(study)
