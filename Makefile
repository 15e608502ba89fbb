# The verbs; CI and people run the same ones.
PYTHON ?= python3
BIN := .venv/bin
NEWEST := .cache/newest
INSTALLED := .venv/.ready
READY := .venv/.kernels
KERNELS := kernels/build.py $(wildcard kernels/*.h kernels/*.cc kernels/*/*.h kernels/*/*.cc)
TORCHVISION := .cache/torchvision
# Packages that tests compare with, in folders of their own: where they are installed, transformers behaves otherwise.
PEFT := .cache/peft
OPTIMUM := .cache/optimum
PEERS := .cache/peers
LLAMA := $(PEERS)/llama
# Python of the environment that Triton's models run in with --engine vllm; its tests run there.
VLLM_PYTHON = $$($(BIN)/python -m serving --prepare --engine vllm | tail -n 1)/python

.PHONY: setup setup-vllm demo test test-vllm test-newest test-families test-scale test-clients sanitize wheels arm check docs format serve export tiny-model tiny-tiles evaluate bench bench-memory bench-start bench-callers device-reports bench-arm bench-vllm bench-serving bench-decode bench-gateway npu screenshots bench-edge bench-retrieval bench-embeddings load precisions payload klt pictures campaign clean help

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with everything, and Triton's own small environment

# The kernels again where somebody changed them or pulled a change of them.
$(READY): $(INSTALLED) $(KERNELS)
	$(BIN)/python -m kernels.build
	touch $@

$(INSTALLED): pyproject.toml constraints.txt optimum_plugin/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	rm -rf $(TORCHVISION)
	$(BIN)/python -m pip install --quiet --no-deps --target $(TORCHVISION) torchvision==0.28.0
	rm -rf $(PEFT) $(OPTIMUM)
	$(BIN)/python -m pip install --quiet --no-deps --target $(PEFT) peft==0.21.2 accelerate==1.15.0
	$(BIN)/python -m pip install --quiet --no-deps --target $(OPTIMUM) optimum==2.1.0 optimum-onnx==0.1.0 ./optimum_plugin
	$(BIN)/python -m tests.edge.real_media
	$(BIN)/python -m tests.ui.browser
	$(BIN)/python -m serving --prepare
	touch $@

setup-vllm: $(READY) ## vLLM's CPU build, 1.2 GB, for --engine vllm on this machine
	$(BIN)/python -m serving --prepare --engine vllm

demo: $(READY) ## a picture, a real Triton, three questions, streamed answers; MODEL=models/tiny-tiles takes the model with tiles
	$(BIN)/python -m examples.demo $(if $(MODEL),--model $(MODEL))

# Files whose tests start no server and watch no clock: two processes share them. All others run one after the other.
PAIRED := $(wildcard tests/contract/test_*.py tests/edge/test_kernel*.py) $(patsubst %,tests/edge/test_%.py,bundle_links \
    chat_template command_media conversations damaged_media encoder jpeg media preprocessing real_media real_vocabulary rows static_tower video wheels) \
    $(patsubst %,tests/export/test_%.py,export_errors plan_and_progress precisions) tests/families/test_embedder.py
test: $(READY) ## the whole suite against real parts, and what matters most of it on vLLM
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PAIRED)
	$(BIN)/python -m pytest $(PAIRED:%=--ignore=%) --ignore=tests/arm --ignore=tests/scale --ignore=tests/clients --ignore=tests/npu
	$(VLLM_PYTHON) -m pytest tests/vllm/test_engine.py tests/vllm/test_families.py -k "not test_families or llava_next"
	EDGE_VLM_TEST_ENGINE=vllm $(BIN)/python -m pytest tests/serving/test_triton.py

test-vllm: $(READY) ## everything that can run on vLLM: its own tests and traps, the served suites, the bundled model
	$(VLLM_PYTHON) -m pytest tests/vllm
	EDGE_VLM_TEST_ENGINE=vllm $(BIN)/python -m pytest tests/serving/test_triton.py tests/serving/test_life.py \
	    tests/serving/test_reuse.py tests/serving/test_metrics.py tests/serving/test_engine_core.py tests/serving/test_rows.py \
	    tests/serving/test_hybrid_on_vllm.py tests/test_end_to_end.py \
	    tests/families/test_triton.py tests/families/test_bundled_tiles.py

test-families: $(READY) ## every model family from a whole checkpoint to its answers, and its gates: 6 minutes on two cores
	EDGE_VLM_TEST_FAMILIES=all $(BIN)/python -m pytest tests/families

SCALE ?= tests/scale
test-scale: $(READY) ## several servers behind haproxy, nginx and Envoy, with Redis: 15 minutes; installs them where it may
	@for name in haproxy nginx redis-server; do PATH=$$PATH:/usr/sbin command -v $$name >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then if [ "$$(id -u)" = 0 ]; then apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends haproxy nginx-light redis-server; \
	else echo "haproxy, nginx or redis-server is missing: sudo apt-get install haproxy nginx-light redis-server"; exit 1; fi; fi
	$(BIN)/python -m pytest -s $(SCALE)

CLIENTS ?= tests/clients
test-clients: $(READY) ## clients' real packages against one gateway, and their table in docs/gateway.md; needs node and npm, 2 GB
	$(BIN)/python -m pytest $(CLIENTS)

sanitize: $(READY) ## the kernels' tests under AddressSanitizer and UBSan; installs clang where it may
	@if ! command -v clang++-14 >/dev/null; then if [ "$$(id -u)" = 0 ]; then apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends clang-14 libclang-rt-14-dev; \
	else echo "clang++-14 is missing: sudo apt-get install clang-14 libclang-rt-14-dev"; exit 1; fi; fi
	$(BIN)/python -m kernels.sanitize --out benchmarks/results/sanitize.json

wheels: $(READY) ## dist/: a wheel for x86_64 and one for aarch64, each with its kernels, a source distribution, a bill of materials
	$(BIN)/python -m kernels.build
	$(BIN)/python -m kernels.wheels dist

ARM ?= tests/arm
arm: $(READY) ## the device's code on an emulated ARM Linux, every precision against this machine; no root
	$(BIN)/python -m pytest $(ARM)

check: $(READY) docs ## format, lint, types, import directions, the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## the documentation as a site in site/, without the network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(READY) ## let ruff format and repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

export: $(READY) ## edge bundle and language checkpoint of the bundled model, in .cache/
	$(BIN)/python -m export.vision models/tiny .cache/bundle
	$(BIN)/python -m export.language models/tiny .cache/language --bundle .cache/bundle

serve: export ## Triton on 127.0.0.1:8000 (HTTP), 8001 (gRPC), 8002 (metrics)
	$(BIN)/python -m serving --model .cache/language --engine transformers

tiny-model: $(READY) ## train the bundled model from nothing: 75 minutes on one core
	$(BIN)/python -m tiny_model.train --out .cache/tiny-run --package models/tiny
	$(BIN)/python -m tiny_model.evaluate models/tiny --out models/tiny/evaluation.json

tiny-tiles: $(READY) ## train the bundled model with tiles, from the weights of models/tiny: 55 minutes on one core
	$(BIN)/python -m tiny_model.tiles.train --out .cache/tiny-tiles-run --package models/tiny-tiles
	$(BIN)/python -m tiny_model.tiles.evaluate models/tiny-tiles --out models/tiny-tiles/evaluation.json

bench: $(READY) ## the tower against transformers, one JSON line
	$(BIN)/python -m benchmarks.encode --out benchmarks/results/encode.json

bench-memory: $(READY) ## the device's memory and load time at the 2B tower's size
	$(BIN)/python -m benchmarks.edge_memory --out benchmarks/results/edge_memory.json

BUNDLE ?= .cache/edge/bundle-24-int8
bench-start: $(READY) ## from opening BUNDLE to its first embedding, and what processes share; a 2B bundle of make bench-edge
	$(BIN)/python -m benchmarks.edge_start --bundle $(BUNDLE) --out benchmarks/results/edge_start.json

bench-callers: $(READY) ## pictures a second of BUNDLE by threads, sessions and pictures a call
	$(BIN)/python -m benchmarks.edge_callers --bundle $(BUNDLE) --out benchmarks/results/edge_callers.json

bench-arm: $(READY) ## instructions of one layer on an emulated Cortex-A76: our kernels, onnxruntime, llama.cpp; needs make bench-edge before
	$(BIN)/python -m tests.arm.instructions --out benchmarks/results/arm_instructions.json

device-reports: $(READY) ## docs/device-reports.md, from the reports of devices in benchmarks/reports
	$(BIN)/python -m benchmarks.device_reports

bench-vllm: $(READY) ## our vLLM engine under Triton, AsyncLLM alone, the transformers engine
	$(BIN)/python -m serving --prepare --engine vllm
	$(BIN)/python -m benchmarks.vllm --out benchmarks/results/vllm.json

bench-serving: $(READY) ## what Triton and the adapter add to the engine, large requests, memory over 1,000 requests
	$(BIN)/python -m benchmarks.serving --out benchmarks/results/serving.json

load: export ## NVIDIA's perf_analyzer over gRPC and HTTP, 1 to 16 at once: table, JSON and picture
	$(BIN)/python -m benchmarks.load --out benchmarks/results

bench-decode: $(READY) ## tokens a second, one stream and eight, against transformers' generate, one JSON line
	$(BIN)/python -m benchmarks.decode --out benchmarks/results/decode.json

precisions: $(READY) ## what each precision costs in answers, one JSON line
	$(BIN)/python -m benchmarks.precisions --out benchmarks/results/precisions.json

payload: $(READY) ## the upload's codecs: bytes, milliseconds, loud channels, 20,000 damaged streams, one JSON line
	$(BIN)/python -m benchmarks.payload --out benchmarks/results/payload.json

npu: $(READY) ## the bundled model's tower by each accelerator's toolchain, emulated: cosines, bytes, changed answers
	$(BIN)/python -m pytest tests/npu
	$(BIN)/python -m benchmarks.npu --out benchmarks/results/npu.json
	$(BIN)/python -m benchmarks.static_export --out benchmarks/results/static_export.json

bench-gateway: $(READY) ## what the gateway costs, and 32 callers at once, one JSON line
	$(BIN)/python -m benchmarks.gateway --out benchmarks/results/gateway.json

bench-edge: $(LLAMA)/.ready ## our tower against transformers, torch.compile, OpenVINO and llama.cpp on this CPU: 45 minutes
	$(PEERS)/bin/python -m benchmarks.edge --out benchmarks/results
	$(PEERS)/bin/python -m benchmarks.tile_towers --out benchmarks/results/tile_towers.json

# The newest releases of transformers and onnxruntime in an environment of their own, which sees the project's other packages behind them.
NEWEST_TESTS ?= tests/export/test_export_vision.py tests/export/test_input_gates.py tests/edge/test_preprocessing.py tests/serving/test_engine.py \
    tests/serving/test_pooling.py tests/families/test_embedder.py tests/families/test_families.py tests/test_end_to_end.py
test-newest: $(READY) ## a part of the suite on the newest transformers and onnxruntime; NEWEST_TESTS=tests for all of it
	$(PYTHON) -m venv --clear $(NEWEST)
	$(BIN)/python -c "import os, sysconfig; print(sysconfig.get_path('purelib'), os.getcwd(), sep='\n')" \
	    > $$($(NEWEST)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth
	$(NEWEST)/bin/python -m pip install --quiet --upgrade setuptools transformers onnxruntime
	$(NEWEST)/bin/python -m pip list | grep -E "^(transformers|onnxruntime|torch|tokenizers|numpy) "
	$(NEWEST)/bin/python -m pytest $(patsubst %,--ignore=tests/%,arm clients npu scale vllm) $(NEWEST_TESTS)

# OpenVINO in an environment of its own, which sees the project's packages behind its own.
$(PEERS)/.ready: $(READY) benchmarks/edge/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/edge/requirements.txt
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > $$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth
	touch $@

# llama.cpp from the source that llama-cpp-python carries; needs a C++ compiler.
$(LLAMA)/.ready: $(PEERS)/.ready benchmarks/edge/llama/build.py benchmarks/edge/llama/CMakeLists.txt benchmarks/edge/llama/tower.cpp
	$(PEERS)/bin/python -m benchmarks.edge.llama.build
	touch $@

pictures: $(READY) ## the plots of benchmarks/results again, from their committed data
	$(BIN)/python -m benchmarks.pictures

MINUTES ?= 60
CASES ?= 100000
RATE ?=
campaign: $(READY) ## damaged files, hostile requests, kills and a soak, MINUTES=60 each, both engines; RATE=2 a second; JSON lines
	$(BIN)/python -m serving --prepare --engine vllm
	$(BIN)/python -m tests.hostile.campaign files --cases $(CASES) --minutes $(MINUTES)
	$(BIN)/python -m tests.edge.test_damaged_media $(CASES)
	for engine in transformers vllm; do for part in fuzz "soak $(if $(RATE),--rate $(RATE))" kept; do \
	EDGE_VLM_TEST_ENGINE=$$engine $(BIN)/python -m tests.hostile.campaign $$part --cases $(CASES) --minutes $(MINUTES) || exit 1; done; done
	for model in hybrid tiny tiny-tiles; do $(BIN)/python -m tests.hostile.campaign fuzz --model $$model --cases $(CASES) --minutes $(MINUTES) || exit 1; done
	$(BIN)/python -m tests.hostile.campaign chaos

klt: $(READY) ## the codec klt learned for the bundled model from 1,600 drawn pictures: bytes, divergence, one JSON line; 15 minutes
	$(BIN)/python -m benchmarks.klt --out benchmarks/results/klt.json

bench-embeddings: $(READY) ## embeddings of 100 pictures through the gateway against the bare tower, one JSON line
	$(BIN)/python -m benchmarks.embeddings --out benchmarks/results/embeddings.json

bench-retrieval: $(READY) ## whether the bundled tower's rows find a picture again: recall@1, one JSON line
	$(BIN)/python -m benchmarks.retrieval --out benchmarks/results/retrieval.json

evaluate: $(READY) ## accuracy of the bundled models, and what faults cost them
	$(BIN)/python -m tiny_model.evaluate models/tiny --out models/tiny/evaluation.json
	$(BIN)/python -m tiny_model.tiles.evaluate models/tiny-tiles --out models/tiny-tiles/evaluation.json

screenshots: $(READY) ## the page as docs/images shows it
	$(BIN)/python -m tests.ui.screenshots

clean: ## remove what setup and the runs made
	rm -rf .venv .cache site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
