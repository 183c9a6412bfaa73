from mechsub import lab
from studies.token_entanglement import study

if __name__ == "__main__":
    lab.main(study)
