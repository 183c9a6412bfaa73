from mechsub import lab
from studies.planted_shares import study

if __name__ == "__main__":
    lab.main(study)
