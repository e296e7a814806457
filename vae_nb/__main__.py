"""`python -m vae_nb` is the command `vae_nb`."""
from vae_nb.cli import main

if __name__ == "__main__": main()
