from mechsub import lab
from studies.hidden_alignment import study

if __name__ == "__main__":
    lab.main(study)
