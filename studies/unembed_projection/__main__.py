from mechsub import lab
from studies.unembed_projection import study

if __name__ == "__main__":
    lab.main(study)
