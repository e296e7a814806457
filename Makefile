# `make` lists what can be made. Everything is installed into .venv, once, by whichever target needs it first.
python := .venv/bin/python
stamp := .venv/.installed
.DEFAULT_GOAL := help

# An environment that came along with a copied or moved folder still points at the old one.
ifneq ($(shell cat $(stamp) 2>/dev/null),$(CURDIR))
$(stamp): again
endif

.PHONY: help install demo figures test test-long docs preview readme bench clean again

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(stamp) ## make .venv with the package and its tools (git, make and Python 3.11 or newer are enough)

demo: $(stamp) ## train a VAE on real digits for a minute and draw its figures into runs/demo
	.venv/bin/vae_nb demo

figures: $(stamp) ## make the figures of the README again (trains on full MNIST)
	$(python) tools/readme_figures.py

test: $(stamp) ## run every notebook and test; the last line counts what passed and failed
	@$(python) tools/run_tests.py

test-long: $(stamp) ## the same with the slow cells and tests, and those that download data
	@$(python) tools/run_tests.py --long

docs: $(stamp) ## build the site into _docs with Quarto
	$(python) tools/docs.py build

preview: $(stamp) ## build the site without Quarto and show it in a browser
	$(python) tools/docs.py preview

readme: $(stamp) ## make README.md from nbs/index.ipynb; write address and counts of proofs where they stand
	$(python) tools/address.py
	$(python) tools/make_readme.py
	$(python) tools/proofs.py

bench: $(stamp) ## images per second in training, beside other loops, pythae and the limits of the machine
	$(python) benchmarks/throughput.py

clean: ## remove what was built (.venv and runs stay)
	rm -rf _docs _proc build dist *.egg-info .pytest_cache nbs/nbdev.yml nbs/sidebar.yml
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

$(stamp): settings.ini setup.py constraints.txt
	@tools/install.sh
