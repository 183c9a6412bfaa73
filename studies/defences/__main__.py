from mechsub import lab
from studies.defences import study

if __name__ == "__main__":
    lab.main(study)
