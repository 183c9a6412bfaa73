from mechsub import lab
from studies.base_vs_instruct import study

if __name__ == "__main__":
    lab.main(study)
