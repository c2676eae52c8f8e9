/*
 * objects.c
 *		The OIDs of the extension's own objects in this database.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* OIDs of our own objects; looked up again after the catalogs changed */
static struct
{
	bool		callback_registered;
	Oid			private_schema;
	Oid			public_schema;
	Oid			event_type;
	Oid			append_trigger;
	Oid			position_sequence;
	bool		functions_known;
	Oid			read_stream;
	Oid			read_all;
	Oid			append;
	Oid			append_events;
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
	objects.functions_known = false;
}

/*
 * register_callback makes sure that what is remembered is forgotten in time.
 */
static void
register_callback(void)
{
	if (objects.callback_registered)
		return;
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_objects, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_objects, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_objects, (Datum) 0);
	objects.callback_registered = true;
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
	register_callback();
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
 * function_named returns the function of a name in a schema; public functions
 * are not overloaded.
 */
static Oid
function_named(const char *name, Oid schema)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	Oid			function = InvalidOid;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (proc->pronamespace == schema)
			function = proc->oid;
	}
	ReleaseSysCacheList(list);
	return function;
}

/*
 * find_functions looks up the functions of which a plan makes something of its
 * own; they stay unknown in a database without the extension.
 */
static void
find_functions(void)
{
	Oid			schema;

	register_callback();
	if (objects.functions_known)
		return;
	schema = extension_schema();

	/* first, as a look can bring the news that it is out of date */
	objects.functions_known = true;
	objects.read_stream = InvalidOid;
	objects.read_all = InvalidOid;
	objects.append = InvalidOid;
	objects.append_events = InvalidOid;
	if (!OidIsValid(schema))
		return;
	objects.read_stream = function_named("es_read_stream", schema);
	objects.read_all = function_named("es_read_all", schema);
	objects.append = function_named("es_append", schema);
	objects.append_events = function_named("es_append_events", schema);
}

/*
 * es_reader_of tells which of the functions that read a function is; no error
 * in a database without the extension.
 */
EsReader
es_reader_of(Oid function)
{
	find_functions();
	if (function == objects.read_stream)
		return ES_READS_STREAM;
	if (function == objects.read_all)
		return ES_READS_ALL;
	return ES_READS_NOTHING;
}

/*
 * es_appends tells whether a function is es_append() or es_append_events(); no
 * error in a database without the extension.
 */
bool
es_appends(Oid function)
{
	find_functions();
	return function == objects.append || function == objects.append_events;
}
