# minibroker: `make serve` starts the broker, `make test` runs every test; both set up what they need.
# The only requirements are make and a Python of at least 3.11 (choose one with PYTHON=python3.12).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# make passes its own signals and flags on; nothing here may depend on the caller's environment.
# Images for containers often set this one: then every process compiles all that it imports, every time.
unexport PYTHONDONTWRITEBYTECODE
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: attacks model bridges cluster cluster-test cluster-faults backups page screenshots help setup serve test check format tables bench compare counted demo crash cuts faults fuzz full-disk stops starts story damage sim planted growth scale profile bench-peers bench-replicated bench-fanout bench-log bench-workers bench-blocking bench-http bench-tenants dramatiq-suite taskiq-suite django-suite bench-celery celery-suite celery-torture flower libraries-torture bench-libraries clean

help:
	@echo "make serve    start the broker on ./data, port 7272; PORT=7300, or the variables of minibroker serve"
	@echo "make test     run all tests"
	@echo "make check    formatting, lint, types, house rules"
	@echo "make bench    measure throughput and latency on this machine"
	@echo "make compare  measure two commits in turn: A=HEAD~1 B=HEAD, WORK=micro or rows of bench, PAIRS=5, OWN=1 each with its own benchmarks"
	@echo "make counted  instructions of the broker for a message, of two commits, by valgrind: A=HEAD~1 B=HEAD"
	@echo "make demo     the signup story: kill workers and the broker, lose nothing"
	@echo "make crash    SIGKILL the broker under load: KILLS=100 times, as SEED says, for BUDGET=600 s at most; WITH=stream"
	@echo "make sim      simulated worlds out of one seed, for BUDGET=600 s: SEED=7, WORLDS=1 TRACE=1 shows one alone; WITH=log, stream or standby"
	@echo "make model    the core beside its model: STEPS=100000 of them from SEED=7 on, for BUDGET seconds at most; then WORLDS=200 of six kinds"
	@echo "make cuts     crash states and damaged files: BUDGET=600 s of them, as SEED says; ONLY=... is one of them"
	@echo "make faults   every system call of a short workload fails once, or kills the broker: SEED, BUDGET=1800 s"
	@echo "make fuzz     hostile bytes for BUDGET=600 s: frames of both sides, the log; INPUT=... tries one again"
	@echo "make full-disk  acks, restarts and deliveries on a tmpfs with no byte free: SEED, BUDGET=300 s"
	@echo "make stops    as crash, with SIGTERM: exit code 0 within 10 s, nothing lost, nothing twice, nothing refused"
	@echo "make story    Flask, Django and workers out of the wheel while all of it dies once: SEED, BUDGET=600 s, REQUESTS=500"
	@echo "make bridges  minibroker bridge with RabbitMQ, Redis, NATS and Kafka (KAFKA_HOME): each process dies on each way; make test has one death for each"
	@echo "make cluster  three servers of NATS on this machine and a broker whose log they keep: DIR=folder, PORT=7272"
	@echo "make cluster-test  three servers of NATS and brokers on them, some of which are killed: half a minute"
	@echo "make cluster-faults  three servers of NATS and two brokers under load: kills, pauses and cuts of each: SEED, BUDGET=3600 s, ONLY=\"kill broker\""
	@echo "make dramatiq-suite  the tests of Dramatiq itself, out of its source package, with minibroker as its broker; ARGS=\"-k redis\""
	@echo "make taskiq-suite    the same of Taskiq"
	@echo "make django-suite    Django's tests of its Tasks, with minibroker where they say DummyBackend and ImmediateBackend; a Python of 3.12 or more in PATH"
	@echo "make backups  back-ups under load, something killed at random: ROUNDS=20, SEED=7, BUDGET=900 s"
	@echo "make starts   STARTS=1000 starts without traffic: no file grows, nothing is counted twice"
	@echo "make damage   flip every bit of a small log, spoil it CASES=1000 times as SEED says: check finds, salvage keeps"
	@echo "make planted  planted bugs, which the layers above must find: SEED=1, BUDGET=1800 s; ONLY=\"a name\" is one of them"
	@echo "make growth   memory, disk and restart of a backlog: MESSAGES=1000000 BODY=200 FRAME=100 QUEUES=1 KILLS=2, DRAIN=1, or PAST=10000000"
	@echo "make scale    receive, delays, memory, starts and more as they grow: ROWS=\"depth pauses starts memory\""
	@echo "make profile  where the time of a message goes, span by span: ROW=lone, handler, consume-1 or consume-32; WRITE=1 renews docs/performance.md"
	@echo "make bench-fanout messages through a topic exchange to 1, 3 and 10 queues, beside RabbitMQ: ARGS=\"--pairs 5\""
	@echo "make bench-log    a retained log beside a Kafka topic: publish in batches, three groups that read: ARGS=\"--messages 10000000\""
	@echo "make bench-peers  the same work through Redis, RabbitMQ, NATS, beanstalkd and Kafka: ARGS=\"--quick --only redis --work cpu\""
	@echo "make bench-replicated  the log on three servers of NATS, quorum queues of RabbitMQ, JetStream: ARGS=\"--quick\", ARGS=takeovers"
	@echo "make attacks  strangers flood a broker, COUNT=10000 times each, with and without TLS: pings of others stay below 20 ms"
	@echo "make bench-workers   a job that does nothing through minibroker worker, Celery, Dramatiq, Taskiq and RQ: ARGS=\"--rounds 1\""
	@echo "make bench-celery    no-op tasks of Celery, prefork and threads, on this broker and on Redis: ARGS=\"--tasks 2000\""
	@echo "make bench-tenants   tenants, rates, priorities, doubles, schedules: minibroker, BullMQ, Faktory, RabbitMQ, Celery: ARGS=\"--only celery\""
	@echo "make celery-suite    kombu's and Celery's own integration tests, on this broker and beside it on Redis: FILES=\"test_tasks\" BACKEND=minibroker"
	@echo "make bench-libraries   tasks that do nothing, idle workers and one task alone: Dramatiq and Taskiq, on Redis as well: ARGS=\"--only taskiq --rounds 3\""
	@echo "make libraries-torture   Dramatiq and Taskiq under SIGKILLs of workers and broker, the same on Redis: ARGS=\"--only dramatiq\""
	@echo "make flower   Flower on a worker whose broker this is: installs it, and runs its test"
	@echo "make celery-torture  20,000 tasks of Celery under SIGKILLs of workers and broker, the same on Redis: ARGS=\"--only minibroker\""
	@echo "make bench-blocking  one publish at a time: minibroker.sync, the asyncio client, redis-py: ARGS=\"--pairs 3\""
	@echo "make bench-http  what it costs to be watched: scrapes, an open page, tokens; and encrypted; ARGS=\"rates --pairs 7\""
	@echo "make page     the page in Chromium with 10,000 queues and 100,000 dead messages; how long each page takes to load"
	@echo "make screenshots  the picture of the page in README.md, of a broker at work; ALL=folder: every page, light, dark, and on a phone"
	@echo "make format   format the code; make tables: print the tables of the documents and the dashboard again"
	@echo "make clean    remove everything that make made (./data stays)"

# Two stamps: serving needs four small packages, developing needs the test tools and the demo as well.
$(VENV)/.serve-ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"minibroker needs Python 3.11 or newer, and $(PYTHON) is {sys.version.split()[0]}: try make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || { echo "setting up $(VENV)" && $(PYTHON) -m venv $(VENV); }
	@$(PIP) install --editable .
	@$(BIN)/python -m compileall -q broker client
	@touch $@

$(VENV)/.develop-ready: $(VENV)/.serve-ready
	@echo "installing the development tools"
	@$(PIP) install --editable '.[dev,demo]'
	@touch $@

$(VENV)/.peers-ready: $(VENV)/.develop-ready
	@echo "installing the clients of the peers"
	@$(PIP) install --editable '.[peers]'
	@touch $@

setup: $(VENV)/.develop-ready

serve: $(VENV)/.serve-ready
	@exec $(BIN)/minibroker serve $(if $(PORT),--port $(PORT))

# Files side by side, each in one process: the tests of a file share what they start. More of them than a small
# machine has cores: they wait for processes and disks as long as they compute. The slowest first: tests/conftest.py.
test: $(VENV)/.develop-ready
	@$(BIN)/python -m pytest --quiet --numprocesses $(or $(JOBS),5) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.develop-ready
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary --config-file tests/mypy.ini
	@$(BIN)/python -m pytest --quiet tests/house

attacks: $(VENV)/.develop-ready
	@$(BIN)/python tests/access/attack_campaign.py $(or $(COUNT),10000)

format: $(VENV)/.develop-ready
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

tables: $(VENV)/.develop-ready
	@$(BIN)/python docs/tables.py
	@$(BIN)/python docs/dashboard.py

page: $(VENV)/.develop-ready
	@DEAD=$(or $(DEAD),100000) $(BIN)/python -m pytest --quiet --capture=no tests/http/test_page_large.py

screenshots: $(VENV)/.develop-ready
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(PIP) install --editable '.[browser]'
	@$(BIN)/python docs/screenshots.py $(ALL)

bench: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.bench

compare: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.compare $(or $(A),HEAD~1) $(or $(B),HEAD) $(if $(OWN),--own) --work $(or $(WORK),micro) --pairs $(or $(PAIRS),5)

counted: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.counted $(or $(A),HEAD~1) $(or $(B),HEAD)

growth: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.growth --messages $(or $(MESSAGES),1000000) --body $(or $(BODY),200) --frame $(or $(FRAME),100) --queues $(or $(QUEUES),1) --kills $(or $(KILLS),2) $(if $(DRAIN),--drain) $(if $(PAST),--past $(PAST))

scale: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.scale $(ROWS)

profile: $(if $(WRITE),$(VENV)/.peers-ready,$(VENV)/.develop-ready)
	@$(BIN)/python -m benchmarks.spans $(ROW) $(if $(WRITE),--write) $(ARGS)

# Servers come from the system (apt-get install redis-server rabbitmq-server beanstalkd), Kafka from KAFKA_HOME; one that is missing is skipped.
bench-peers: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-replicated: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.replicated $(ARGS)

bench-log: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.logs $(ARGS)

bench-fanout: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.fanout $(ARGS)

bench-celery: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.celery_rates $(ARGS)

bench-workers: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.workers $(ARGS)

bench-tenants: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.tenants $(ARGS)

bench-blocking: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.blocking $(ARGS)

bench-http: $(VENV)/.develop-ready
	@$(BIN)/python -m benchmarks.watched $(ARGS)

celery-suite: $(VENV)/.peers-ready
	@PYTHONPATH=tests FILES="$(or $(FILES),test_tasks test_canvas test_worker test_inspect)" BACKEND="$(or $(BACKEND),redis)" $(BIN)/python tests/contrib/suites/celery_suite.py

flower: $(VENV)/.develop-ready
	@$(PIP) install 'flower==2.2.0'
	@$(BIN)/python -m pytest --quiet tests/contrib/test_celery_flower.py

bench-libraries: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.libraries $(ARGS)

libraries-torture: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.torture $(ARGS)

celery-torture: $(VENV)/.peers-ready
	@$(BIN)/python -m benchmarks.celery_torture $(ARGS)

demo: $(VENV)/.develop-ready
	@$(BIN)/python examples/signup/demo.py

faults: $(VENV)/.develop-ready
	@PYTHONPATH=tests SEED=$(SEED) BUDGET=$(BUDGET) SCENARIO=$(SCENARIO) FAULT=$(FAULT) JOBS=$(JOBS) $(BIN)/python tests/faults/fault_campaign.py

stops: $(VENV)/.develop-ready
	@PYTHONPATH=tests SIGNAL=TERM WITH="$(WITH)" KILLS=$(KILLS) SEED=$(SEED) BUDGET=$(BUDGET) $(BIN)/python tests/kills/campaign.py

story: $(VENV)/.develop-ready
	@PYTHONPATH=tests SEED=$(SEED) BUDGET=$(BUDGET) REQUESTS=$(REQUESTS) WHEEL=$(WHEEL) $(BIN)/python tests/story/story_campaign.py

full-disk: $(VENV)/.develop-ready
	@PYTHONPATH=tests SEED=$(SEED) BUDGET=$(BUDGET) $(BIN)/python tests/full_disk/disk_campaign.py

crash: $(VENV)/.develop-ready
	@PYTHONPATH=tests WITH="$(WITH)" KILLS=$(KILLS) SEED=$(SEED) BUDGET=$(BUDGET) $(BIN)/python tests/kills/campaign.py

bridges: $(VENV)/.peers-ready
	@EVERY_DEATH=1 $(BIN)/python -m pytest --quiet tests/bridges

cluster-test: $(VENV)/.develop-ready
	@$(BIN)/python -m pytest --quiet tests/replicated/cluster_three_nodes.py

cluster-faults: $(VENV)/.develop-ready
	@PYTHONPATH=tests:tests/kills SEED=$(SEED) BUDGET=$(BUDGET) ROUNDS=$(ROUNDS) ONLY="$(ONLY)" $(BIN)/python tests/cluster_faults/cluster_campaign.py

cluster: $(VENV)/.develop-ready
	@PYTHONPATH=tests $(BIN)/python tests/replicated/try_cluster.py

dramatiq-suite: $(VENV)/.develop-ready
	@$(BIN)/python tests/contrib/upstream.py dramatiq $(ARGS)

taskiq-suite: $(VENV)/.develop-ready
	@$(BIN)/python tests/contrib/upstream.py taskiq $(ARGS)

django-suite: $(VENV)/.develop-ready
	@$(BIN)/python tests/contrib/upstream.py django $(ARGS)

backups: $(VENV)/.develop-ready
	@PYTHONPATH=tests:tests/kills ROUNDS=$(ROUNDS) SEED=$(SEED) BUDGET=$(BUDGET) $(BIN)/python tests/backups/backup_campaign.py

sim: $(VENV)/.develop-ready
	@PYTHONPATH=tests:tests/core:tests/cuts:tests/replicated SEED=$(SEED) WORLDS=$(WORLDS) BUDGET=$(BUDGET) TRACE=$(TRACE) WITH="$(WITH)" $(BIN)/python tests/sim/sim_campaign.py

model: $(VENV)/.develop-ready
	@PYTHONPATH=tests:tests/core SEED=$(SEED) STEPS=$(STEPS) BUDGET=$(BUDGET) $(BIN)/python tests/model/model_campaign.py
	@PYTHONPATH=tests:tests/core SEED=$(SEED) STEPS=$(STEPS) BUDGET=$(BUDGET) $(BIN)/python tests/model/routing_campaign.py
	@MINIBROKER_WORLDS=$(or $(WORLDS),200) WORLDS=$(or $(WORLDS),200) $(BIN)/python -m pytest --quiet --timeout=0 tests/core/test_chained_worlds.py tests/core/test_explained_worlds.py tests/core/test_owned_worlds.py tests/core/test_core_logs.py tests/retained/test_retained_cuts.py tests/retained/test_retained_model.py

cuts: $(VENV)/.develop-ready
	@PYTHONPATH=tests:tests/core SEED=$(SEED) BUDGET=$(BUDGET) ONLY=$(ONLY) $(BIN)/python tests/cuts/cuts_campaign.py

fuzz: $(VENV)/.develop-ready
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP) install --editable '.[fuzz]' || echo "atheris cannot be installed: Hypothesis stands in"
	@PYTHONPATH=tests:tests/core:tests/server:tests/cuts SEED=$(SEED) BUDGET=$(BUDGET) INPUT=$(INPUT) $(BIN)/python tests/fuzz/fuzzing.py

starts: $(VENV)/.develop-ready
	@STARTS=$(or $(STARTS),1000) $(BIN)/python -m pytest --quiet --timeout=0 tests/log/test_restarts.py

planted: $(VENV)/.develop-ready
	@PYTHONPATH=tests SEED=$(SEED) BUDGET=$(BUDGET) ONLY="$(ONLY)" CHECK=$(CHECK) $(BIN)/python tests/planted/planted_campaign.py

damage: $(VENV)/.develop-ready
	@EVERY_BIT=1 CASES=$(or $(CASES),1000) SEED=$(or $(SEED),1) $(BIN)/python -m pytest --quiet --timeout=0 -k "flipped or spoilt" tests/log/test_log_salvage.py

clean:
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf benchmarks/out examples/signup/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
