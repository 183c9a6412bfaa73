from mechsub import lab
from studies.contributions import study

if __name__ == "__main__":
    lab.main(study)
