from mechsub import lab
from studies.audit_language import study

if __name__ == "__main__":
    lab.main(study)
