from mechsub import lab
from studies.steering import study

if __name__ == "__main__":
    lab.main(study)
