from mechsub import lab
from studies.organisms import study

if __name__ == "__main__":
    lab.main(study)
