# `make run` weighs and `make test` tests; both set up first what is missing (setup.sh). Where weighbridge fails, make
# shows its exit code as `Error N`: 3, nothing could run here; 4, some runs failed, and the report is written.

BIN = .venv/bin
ARGS =
QUICK = --numprocesses 2 --dist loadfile -m "not engine and not browser and not long"

# The engines whose tests `make test` must not skip: root can have all of them, others those that they find.
ifeq ($(shell id -u),0)
REQUIRE = host,namespace,docker,libvirt,qemu,browser
else
REQUIRE = $(shell unshare --user --map-root-user true 2>/dev/null && echo namespace),$(shell \
	command -v qemu-system-x86_64 >/dev/null && $(BIN)/python -c 'import libvirt' 2>/dev/null && echo libvirt),$(shell \
	command -v qemu-system-x86_64 >/dev/null && echo qemu),$(shell \
	test -w /var/run/docker.sock && echo docker),$(shell command -v chromium >/dev/null && echo browser)
endif

# The tests start the program hundreds of times: its bytecode is kept, also where the environment says otherwise.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup browser run test check lint lab proofs
.NOTPARALLEL:

setup:
	./setup.sh

# Without the packages that only tests and linters need.
run:
	./setup.sh --no-dev
	$(BIN)/weighbridge run --workloads hello,python,redis --report reports/latest $(ARGS)

# The tests that share nothing run two at a time, the others one by one. Both parts run even if the first fails.
test: setup browser lint
	$(BIN)/pytest $(QUICK) --durations=10; quick=$$?; \
	WEIGHBRIDGE_REQUIRE=$(REQUIRE) $(BIN)/pytest -m "engine or browser or long" --durations=50 && exit $$quick

# What shows the pages to the tests, Chinese ones too: without its glyphs a browser looks for them for a minute.
browser:
	./setup.sh chromium fonts-wqy-microhei

# While working: the tests that take a minute in all and need nothing, on .venv as it is.
check: lint
	$(BIN)/pytest $(QUICK)

# What KVM does, on machines that have none: in one that is emulated for it. DIRECT=1: on this one, without that.
# SYSTEM=debian12, SYSTEM=debian13: runs the users' machine instead, with systemd, its daemons and three users.
# PUBLISH=1: what is green is kept in results/lab/ too, for the documentation.
lab: setup
	$(BIN)/python -m lab $(if $(DIRECT),--direct) $(if $(SYSTEM),--system $(SYSTEM)) $(if $(PUBLISH),--publish)

# That the statistics hold, from recorded campaigns and by simulation, in some minutes: results/proofs.json.
proofs: $(BIN)/ruff
	$(BIN)/python -m selfbench.proofs

lint: $(BIN)/ruff
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Only the set-up with the tests' packages installs ruff.
$(BIN)/ruff:
	./setup.sh
