"""`python -m vtr_training`, for torchrun: torchrun --nproc-per-node 8 -m vtr_training fit ..."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="vtr-train")
