/*
 * eventsrc.c
 *		The map of eventsrc: settings, hooks, and what is set up where.
 *
 *		store/	 tables: the append_only access method, stores, partitions, positions
 *		append/	 es_append() and its family, the trigger behind INSERT and COPY
 *		read/	 es_read_stream(), es_read_all()
 *		state/	 reducers, es_state(), snapshots
 *		worker/  launcher and one worker a database
 *		relay/	 foreign servers, relays, brokers
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "append/append.h"
#include "relay/relay.h"
#include "store/position.h"
#include "store/store.h"
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

void		_PG_init(void);

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

/* OIDs of our own objects; looked up again after the catalogs changed */
static struct
{
	bool		callback_registered;
	Oid			private_schema;
	Oid			public_schema;
	Oid			event_type;
	Oid			append_trigger;
	Oid			position_sequence;
}			objects;

/*
 * forget_objects drops the remembered OIDs; a callback of the system caches.
 */
static void
forget_objects(Datum arg, int cacheid, uint32 hashvalue)
{
	objects.private_schema = InvalidOid;
	objects.public_schema = InvalidOid;
	objects.event_type = InvalidOid;
	objects.append_trigger = InvalidOid;
	objects.position_sequence = InvalidOid;
}

/*
 * es_extension_present tells whether this database has the extension.
 */
bool
es_extension_present(void)
{
	return OidIsValid(get_extension_oid("eventsrc", true));
}

/*
 * found returns an OID that was looked up, or raises the error of a database
 * without the extension.
 */
static Oid
found(Oid oid)
{
	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_RUNNING),
				 errmsg("the extension eventsrc is not installed in this database"),
				 errhint("Run CREATE EXTENSION eventsrc.")));
	return oid;
}

/*
 * es_private_schema returns the OID of the schema eventsrc.
 */
Oid
es_private_schema(void)
{
	if (!objects.callback_registered)
	{
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_objects, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, forget_objects, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, forget_objects, (Datum) 0);
		objects.callback_registered = true;
	}
	if (!OidIsValid(objects.private_schema))
		objects.private_schema = found(get_namespace_oid(ES_PRIVATE_SCHEMA, true));
	return objects.private_schema;
}

/*
 * es_append_trigger returns the OID of eventsrc.append_trigger(), by which
 * events tables are known.
 */
Oid
es_append_trigger(void)
{
	Oid			schema = es_private_schema();

	if (!OidIsValid(objects.append_trigger))
	{
		oidvector  *none = buildoidvector(NULL, 0);

		objects.append_trigger =
			found(GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
								  CStringGetDatum("append_trigger"),
								  PointerGetDatum(none),
								  ObjectIdGetDatum(schema)));
		pfree(none);
	}
	return objects.append_trigger;
}

/*
 * es_position_sequence returns the OID of the sequence eventsrc.position.
 */
Oid
es_position_sequence(void)
{
	Oid			schema = es_private_schema();

	if (!OidIsValid(objects.position_sequence))
		objects.position_sequence = found(get_relname_relid("position", schema));
	return objects.position_sequence;
}

/*
 * extension_schema reads the extension's schema from pg_extension.
 */
static Oid
extension_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			schema = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("eventsrc"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/*
 * es_public_schema returns the OID of the schema of the es_* functions.
 */
Oid
es_public_schema(void)
{
	(void) es_private_schema();
	if (!OidIsValid(objects.public_schema))
		objects.public_schema = found(extension_schema());
	return objects.public_schema;
}

/*
 * es_event_type returns the OID of the composite type es_event.
 */
Oid
es_event_type(void)
{
	Oid			schema = es_public_schema();

	if (!OidIsValid(objects.event_type))
		objects.event_type =
			found(GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
								  CStringGetDatum("es_event"),
								  ObjectIdGetDatum(schema)));
	return objects.event_type;
}

/*
 * request_shmem asks for all shared memory of eventsrc.
 */
static void
request_shmem(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	es_position_request_shmem();
	es_relay_request_shmem();
	es_worker_request_shmem();
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
	es_relay_init_shmem();
	es_worker_init_shmem();
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
	DefineCustomIntVariable("eventsrc.launcher_naptime",
							"Time between the launcher's looks for new databases.",
							NULL, &es_setting_launcher_naptime, 60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
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
	es_append_install_hooks();
	es_relay_init();
	es_worker_register_launcher();
	es_worker_install_hooks();
}
