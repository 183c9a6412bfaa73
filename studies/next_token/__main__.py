from mechsub import lab
from studies.next_token import study

if __name__ == "__main__":
    lab.main(study)
