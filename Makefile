# eventsrc: PGXS build.
#   make            build against the PostgreSQL that PG_CONFIG names
#   make install    install into it
#   make demo       the tour: builds, starts a throw-away server, plays the story
#   make test       everything on the machine's own PostgreSQL
#   make torture    the random tests of order, crashes, failover and brokers, EVENTSRC_TORTURE (20) times as long
#   make matrix     the same on PostgreSQL 17, 18 and an assertion-enabled 18
#   make bench      how fast it is
#   make bench-relay   how fast relays are, beside Debezium Server and bare clients of the same brokers
#   make format     pgindent; make format-check only looks
#   make dist       a zip of the committed tree, for PGXN
#   make installcheck   regress and isolation tests on the running server that PGHOST, PGPORT name

EXTENSION  = eventsrc
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" eventsrc.control)
MODULE_big = eventsrc

# A build for tests (make STOP_POINTS=1) can pause backends at named points; no other
# build contains anything of it.
STOP_POINT_FILES = src/store/stop_point.c
OBJS = $(patsubst %.c,%.o,$(filter-out $(if $(STOP_POINTS),,$(STOP_POINT_FILES)),$(sort $(wildcard src/*.c src/*/*.c))))

# The extension script is joined from one file a capability, in this order.
SQL_PARTS = schema append_only store types progress append read upcast state snapshot temporal trace state_view describe worker relay
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA = $(wildcard sql/$(EXTENSION)--*--*.sql)
EXTRA_CLEAN = $(DATA_built)

PG_CPPFLAGS = -Isrc $(if $(STOP_POINTS),-DES_STOP_POINTS)
# Warnings are errors with WERROR=1 (CI); the three exceptions are the server headers' own noise.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-cast-function-type -Wno-declaration-after-statement $(if $(WERROR),-Werror)
SHLIB_LINK = -lrdkafka -lrabbitmq -lssl -lcrypto

REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --load-extension=eventsrc
# the specs races_* need stop points
ISOLATION = $(filter-out $(if $(STOP_POINTS),,races_%),$(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test --load-extension=eventsrc

# These install what they need themselves: they must work before PostgreSQL is there.
TOOL_GOALS = test torture matrix demo bench bench-relay format format-check dist
.PHONY: $(TOOL_GOALS)

PG_CONFIG ?= pg_config
ifneq ($(filter-out $(TOOL_GOALS),$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) was not found: install postgresql-server-dev-NN, or name it as PG_CONFIG=...)
endif
include $(PGXS)
endif

all: sql/$(EXTENSION)--$(EXTVERSION).sql

sql/$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS:%=sql/%.sql) eventsrc.control Makefile
	{ printf '%s\n' '\echo Use "CREATE EXTENSION eventsrc" to load this file. \quit'; \
	  for part in $(SQL_PARTS); do echo; cat sql/$$part.sql; done; } > $@

# Every object depends on every header: the tree is small.
$(OBJS): $(wildcard src/*.h src/*/*.h)

# Objects of the other kind of build are no good; only a build for tests leaves this one behind.
ifneq ($(if $(STOP_POINTS),yes),$(if $(wildcard src/store/stop_point.o),yes))
$(shell rm -f src/store/stop_point.o)
$(OBJS): FORCE
FORCE:
.PHONY: FORCE
endif

test:
	@test/setup/test.sh

torture:
	@EVENTSRC_TORTURE=$${EVENTSRC_TORTURE:-20} SUITES=torture ES_TEST_TIMEOUT=$${ES_TEST_TIMEOUT:-14400} test/setup/test.sh

matrix:
	@test/setup/matrix.sh

demo:
	@test/setup/install.sh demo
	@demo/demo.sh

bench:
	@test/setup/install.sh bench
	@test/bench/run.sh

bench-relay:
	@test/setup/install.sh bench
	@test/bench/relay/run.sh

format:
	@test/setup/format.sh

format-check:
	@test/setup/format.sh check

dist:
	@grep -q '"version": "$(EXTVERSION)\(\.0\)\?"' META.json || { echo "META.json names another version than eventsrc.control"; exit 1; }
	@mkdir -p dist
	git archive --format zip --prefix $(EXTENSION)-$(EXTVERSION)/ -o dist/$(EXTENSION)-$(EXTVERSION).zip HEAD
