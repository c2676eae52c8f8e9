/*
 * eventsrc.c
 *		The map of eventsrc: settings, hooks, and what is set up where.
 *
 *		store/	 tables: the append_only access method, stores, partitions, positions
 *		schema/	 event types, JSON Schema, what is registered about events
 *		append/	 es_append() and its family, the trigger behind INSERT and COPY
 *		read/	 es_read_stream(), es_read_all()
 *		state/	 reducers, es_state(), snapshots
 *		worker/  launcher and one worker a database
 *		relay/	 foreign servers, relays, brokers
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "append/append.h"
#include "append/bulk.h"
#include "read/read.h"
#include "read/upcast.h"
#include "relay/relay.h"
#include "state/state.h"
#include "store/guard.h"
#include "store/position.h"
#include "store/progress.h"
#include "store/stop_point.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

char	   *es_setting_store = NULL;
char	   *es_setting_user_id = NULL;
char	   *es_setting_correlation_id = NULL;
char	   *es_setting_causation_id = NULL;
char	   *es_setting_traceparent = NULL;
int			es_setting_max_databases = 64;
int			es_setting_max_relays = 64;
int			es_setting_partitions_ahead = 2;
int			es_setting_read_durable = ES_DURABLE_OFF;

static const struct config_enum_entry durable_options[] = {
	{"off", ES_DURABLE_OFF, false},
	{"local", ES_DURABLE_LOCAL, false},
	{"false", ES_DURABLE_OFF, true},
	{"no", ES_DURABLE_OFF, true},
	{"0", ES_DURABLE_OFF, true},
	{NULL, 0, false}
};
int			es_setting_stream_cache = 4096;

void		_PG_init(void);

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

/*
 * request_shmem asks for all shared memory of eventsrc.
 */
static void
request_shmem(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	es_position_request_shmem();
	es_heads_request_shmem();
	es_claims_request_shmem();
	es_relay_request_shmem();
	es_worker_request_shmem();
	es_progress_request_shmem();
}

/*
 * init_shmem finds or makes all shared memory of eventsrc.
 */
static void
init_shmem(void)
{
	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	es_position_init_shmem();
	es_heads_init_shmem();
	es_claims_init_shmem();
	es_relay_init_shmem();
	es_worker_init_shmem();
	es_progress_init_shmem();
}

/*
 * define_settings declares the eventsrc.* settings.
 */
static void
define_settings(void)
{
	DefineCustomStringVariable("eventsrc.store",
							   "Store that functions use when none is named.",
							   NULL, &es_setting_store, "es",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("eventsrc.user_id",
							   "User on whose behalf events are appended; empty means session_user.",
							   NULL, &es_setting_user_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("eventsrc.correlation_id",
							   "Correlation id of the events that are appended.",
							   NULL, &es_setting_correlation_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("eventsrc.causation_id",
							   "Id of the event or command that causes the events that are appended.",
							   NULL, &es_setting_causation_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("eventsrc.traceparent",
							   "W3C trace context of the events that are appended.",
							   NULL, &es_setting_traceparent, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("eventsrc.upcast",
							 "Events of old versions are read as the upcasters make them.",
							 NULL, &es_setting_upcast, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("eventsrc.bulk_insert",
							 "INSERT ... SELECT and COPY write many events at a time.",
							 NULL, &es_setting_bulk_insert, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventsrc.max_databases",
							"Databases of the cluster that can use eventsrc.",
							NULL, &es_setting_max_databases, 64, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventsrc.max_relays",
							"Relays of the cluster that can run at once.",
							NULL, &es_setting_max_relays, 64, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventsrc.partitions_ahead",
							"Months for which partitions are made in advance.",
							NULL, &es_setting_partitions_ahead, 2, 0, 120,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("eventsrc.read_durable",
							 "Whether readers are given only what a crash cannot undo.",
							 "With \"local\", the WAL is flushed before a safe position is given out.",
							 &es_setting_read_durable, ES_DURABLE_OFF, durable_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventsrc.stream_cache",
							"Shared memory that remembers where streams stand; 0 is none.",
							NULL, &es_setting_stream_cache, 4096, 0, 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomBoolVariable("eventsrc.inline_reducers",
							 "Reducers of simple expressions are run by the fold itself, not called.",
							 NULL, &es_setting_inline_reducers, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eventsrc.launcher_naptime",
							"Time between the launcher's looks for new databases.",
							NULL, &es_setting_launcher_naptime, 60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("eventsrc.allow_unsafe_ddl",
							 "Lets commands through that break stores; every use is logged.",
							 NULL, &es_setting_allow_unsafe_ddl, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	ES_STOP_POINT_SETTINGS();
	MarkGUCPrefixReserved("eventsrc");
}

/*
 * _PG_init sets eventsrc up in the postmaster.  Everything depends on shared
 * memory, so there is no other way to load the library.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_RUNNING),
				 errmsg("eventsrc must be loaded by shared_preload_libraries"),
				 errdetail("The order of events is kept in shared memory, which is set up when the server starts."),
				 errhint("Add to postgresql.conf the line  shared_preload_libraries = 'eventsrc'  (after a comma if libraries stand there already) and restart the server.")));

	define_settings();

	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = init_shmem;
	es_position_init_backend();
	es_progress_init_backend();
	es_read_install_hooks();
	es_heads_init_backend();
	es_append_install_hooks();
	es_state_install_hooks();
	es_relay_init();
	es_worker_register_launcher();
	es_worker_install_hooks();
	es_guard_install_hooks();
}
