/*
 * upcast.c
 *		Applies upcasters to events that are read.
 *
 * An upcaster is a function (event es_event).  If it returns jsonb, that is
 * the data of the next version; if it returns es_event, it also chooses type
 * and version.  Upcasters are applied one after the other until there is none
 * for what came out.  What is stored never changes, and what appends look at is
 * what is stored.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "read/scan.h"
#include "read/upcast.h"
#include "schema/registry.h"

/* upcasters that are applied to one event; more can only be a loop */
#define MAX_STEPS	100

bool		es_setting_upcast = true;

struct EsUpcasters
{
	EsRegistry	registry;		/* as it was when this was opened */
	FmgrInfo   *functions;		/* by upcaster; fn_oid 0: not looked up yet */
	bool	   *return_event;
	MemoryContext context;
	MemoryContext event;		/* holds what result shows */
	TupleTableSlot *result;
	EsUpcaster *running;		/* for errors' context */
};

PG_FUNCTION_INFO_V1(es_upcast_event);

/*
 * find_function finds an upcaster's function by its name; InvalidOid if it is
 * gone.
 */
static Oid
find_function(text *name)
{
	List	   *names = textToQualifiedNameList(name);
	Oid			type = es_event_type();
	Oid			schema;

	if (list_length(names) != 2)
		return InvalidOid;
	schema = get_namespace_oid(strVal(linitial(names)), true);
	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(strVal(lsecond(names))),
						   PointerGetDatum(buildoidvector(&type, 1)),
						   ObjectIdGetDatum(schema));
}

/*
 * prepare looks up an upcaster's function and checks that it can be called.
 */
static FmgrInfo *
prepare(EsUpcasters *upcasters, int number)
{
	EsUpcaster *upcaster = &upcasters->registry.upcasters[number];
	FmgrInfo   *function = &upcasters->functions[number];
	Oid			oid;
	Oid			returns;
	AclResult	acl;

	if (OidIsValid(function->fn_oid))
		return function;
	oid = find_function(upcaster->function);
	returns = OidIsValid(oid) ? get_func_rettype(oid) : InvalidOid;
	if ((returns != JSONBOID && returns != es_event_type()) || get_func_retset(oid))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_UPCASTER),
				 errmsg("upcaster %s(es_event) does not exist", text_to_cstring(upcaster->function)),
				 errdetail("The function was dropped, renamed or changed since it was registered."),
				 errhint("Create it again, or register another with es_create_upcaster(); with eventsrc.upcast = off events are read as they are stored.")));
	acl = es_proc_aclcheck(oid, GetUserId(), ACL_EXECUTE);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FUNCTION, get_func_name(oid));
	InvokeFunctionExecuteHook(oid);
	fmgr_info_cxt(oid, function, upcasters->context);
	upcasters->return_event[number] = (returns != JSONBOID);
	return function;
}

/*
 * slot_text returns a text column of a slot.
 */
static char *
slot_text(TupleTableSlot *slot, AttrNumber attribute)
{
	return text_to_cstring(DatumGetTextPP(slot->tts_values[attribute - 1]));
}

/*
 * add_context tells which upcaster failed, and on which event.
 */
static void
add_context(void *arg)
{
	EsUpcasters *upcasters = arg;
	TupleTableSlot *slot = upcasters->result;

	errcontext("upcaster %s from version %d of event type %s, on %s %s at version " INT64_FORMAT,
			   text_to_cstring(upcasters->running->function), upcasters->running->from_version,
			   text_to_cstring(upcasters->running->event_type),
			   slot_text(slot, ES_ATT_AGGREGATE_TYPE), slot_text(slot, ES_ATT_AGGREGATE_ID),
			   DatumGetInt64(slot->tts_values[ES_ATT_VERSION - 1]));
}

/*
 * refuse_result raises the error of a result that is no event.
 */
static void
refuse_result(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_UPCASTER),
			 errmsg("upcaster did not return an event"),
			 errdetail("%s", detail),
			 errhint("An upcaster returns the data of the next version, or the event with event_type, schema_version and data set.")));
}

/*
 * take_event takes type, version and data of the event that an upcaster
 * returned.
 */
static void
take_event(EsUpcasters *upcasters, Datum event)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(event);
	HeapTupleData tuple;
	Datum		values[ES_NATTS];
	bool		nulls[ES_NATTS];
	TupleTableSlot *slot = upcasters->result;

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, es_event_tupdesc(), values, nulls);
	if (nulls[ES_ATT_EVENT_TYPE - 1] || nulls[ES_ATT_SCHEMA_VERSION - 1] || nulls[ES_ATT_DATA - 1])
		refuse_result("Its event_type, schema_version or data is NULL.");
	slot->tts_values[ES_ATT_EVENT_TYPE - 1] = values[ES_ATT_EVENT_TYPE - 1];
	slot->tts_values[ES_ATT_SCHEMA_VERSION - 1] = values[ES_ATT_SCHEMA_VERSION - 1];
	slot->tts_values[ES_ATT_DATA - 1] = values[ES_ATT_DATA - 1];
}

/*
 * apply applies one upcaster to the event in the result slot.
 */
static void
apply(EsUpcasters *upcasters, EsUpcaster *upcaster)
{
	LOCAL_FCINFO(fcinfo, 1);
	int			number = upcaster - upcasters->registry.upcasters;
	FmgrInfo   *function = prepare(upcasters, number);
	TupleTableSlot *slot = upcasters->result;
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, function, 1, DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = es_event_datum(slot);
	fcinfo->args[0].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		refuse_result("It returned NULL.");
	if (upcasters->return_event[number])
	{
		take_event(upcasters, result);
		return;
	}
	slot->tts_values[ES_ATT_DATA - 1] = result;
	slot->tts_values[ES_ATT_SCHEMA_VERSION - 1] = Int32GetDatum(upcaster->from_version + 1);
	if (upcaster->to_type)
		slot->tts_values[ES_ATT_EVENT_TYPE - 1] = PointerGetDatum(upcaster->to_type);
}

/*
 * find_upcaster finds the upcaster for the event in a slot.
 */
static EsUpcaster *
find_upcaster(EsUpcasters *upcasters, TupleTableSlot *slot)
{
	bool		isnull;
	text	   *type = DatumGetTextPP(slot_getattr(slot, ES_ATT_EVENT_TYPE, &isnull));
	int32		version = DatumGetInt32(slot_getattr(slot, ES_ATT_SCHEMA_VERSION, &isnull));

	return es_registry_upcaster(&upcasters->registry, type, version);
}

/*
 * es_upcast returns an event as the upcasters make it.
 */
TupleTableSlot *
es_upcast(EsUpcasters *upcasters, TupleTableSlot *slot)
{
	EsUpcaster *upcaster = find_upcaster(upcasters, slot);
	TupleTableSlot *result = upcasters->result;
	ErrorContextCallback callback;
	MemoryContext old;

	if (upcaster == NULL)
		return slot;

	ExecClearTuple(result);
	MemoryContextReset(upcasters->event);
	old = MemoryContextSwitchTo(upcasters->event);
	slot_getsomeattrs(slot, ES_NATTS);
	memcpy(result->tts_values, slot->tts_values, ES_NATTS * sizeof(Datum));
	memcpy(result->tts_isnull, slot->tts_isnull, ES_NATTS * sizeof(bool));
	ExecStoreVirtualTuple(result);

	callback.callback = add_context;
	callback.arg = upcasters;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	for (int step = 0; upcaster; step++)
	{
		CHECK_FOR_INTERRUPTS();
		upcasters->running = upcaster;
		if (step == MAX_STEPS)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_UPCASTER),
					 errmsg("upcasters run in a loop"),
					 errdetail("After %d of them there is one more for event type \"%s\".", MAX_STEPS,
							   slot_text(result, ES_ATT_EVENT_TYPE)),
					 errhint("An upcaster that returns es_event must lead to a later version or to a type that does not lead back.")));
		apply(upcasters, upcaster);
		upcaster = find_upcaster(upcasters, result);
	}
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);
	return result;
}

/*
 * es_upcasters_open prepares the store's upcasters; NULL if it has none or the
 * setting is off.
 */
EsUpcasters *
es_upcasters_open(EsStore *store)
{
	EsRegistry *registry;
	EsUpcasters *upcasters;
	MemoryContext context;

	if (!es_setting_upcast)
		return NULL;
	registry = es_registry_open(store);
	if (registry->nupcasters == 0)
		return NULL;
	context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc upcasters", ALLOCSET_SMALL_SIZES);
	upcasters = MemoryContextAllocZero(context, sizeof(EsUpcasters));
	upcasters->context = context;
	upcasters->registry = *registry;
	upcasters->functions = MemoryContextAllocZero(context, registry->nupcasters * sizeof(FmgrInfo));
	upcasters->return_event = MemoryContextAllocZero(context, registry->nupcasters * sizeof(bool));
	upcasters->event = AllocSetContextCreate(context, "eventsrc upcast event", ALLOCSET_DEFAULT_SIZES);
	upcasters->result = MakeSingleTupleTableSlot(es_event_tupdesc(), &TTSOpsVirtual);
	return upcasters;
}

/*
 * es_upcasters_close frees what es_upcasters_open() made.
 */
void
es_upcasters_close(EsUpcasters *upcasters)
{
	ExecDropSingleTupleTableSlot(upcasters->result);
	MemoryContextDelete(upcasters->context);
}

/*
 * compute_identity hashes all that the upcasters' answers depend on and that
 * we can see.
 */
static char *
compute_identity(EsRegistry *registry)
{
	StringInfoData input;
	StringInfoData result;
	const uint8 *bytes;
	Datum		hash;
	int			nestlevel = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	initStringInfo(&input);
	for (int i = 0; i < registry->nupcasters; i++)
	{
		EsUpcaster *upcaster = &registry->upcasters[i];
		Oid			function = find_function(upcaster->function);

		appendStringInfo(&input, "%s\n%d\n%s\n%s\n", text_to_cstring(upcaster->event_type),
						 upcaster->from_version, text_to_cstring(upcaster->function),
						 upcaster->to_type ? text_to_cstring(upcaster->to_type) : "");
		if (OidIsValid(function))
			appendStringInfoString(&input, TextDatumGetCString(OidFunctionCall1(F_PG_GET_FUNCTIONDEF,
																				ObjectIdGetDatum(function))));
	}
	AtEOXact_GUC(true, nestlevel);

	hash = DirectFunctionCall1(sha256_bytea,
							   PointerGetDatum(cstring_to_text_with_len(input.data, input.len)));
	bytes = (const uint8 *) VARDATA_ANY(DatumGetPointer(hash));
	initStringInfo(&result);
	for (int i = 0; i < 8; i++)
		appendStringInfo(&result, "%02x", bytes[i]);
	return result.data;
}

/*
 * es_upcasters_identity returns what snapshots must carry of the upcasters, in
 * the current memory context; NULL where none are applied.
 */
const char *
es_upcasters_identity(EsStore *store)
{
	EsRegistry *registry;
	uint64		changes;
	char	   *identity;

	if (!es_setting_upcast)
		return NULL;
	registry = es_registry_open(store);
	if (registry->nupcasters == 0)
		return NULL;
	if (registry->identity)
		return pstrdup(registry->identity);
	changes = registry->changes;
	identity = compute_identity(registry);
	if (registry->valid && registry->changes == changes)
		registry->identity = MemoryContextStrdup(registry->context, identity);
	return identity;
}

/*
 * es_upcasters_schemas lists the schemas of the upcasters' functions, each
 * after a comma, for a search_path.
 */
const char *
es_upcasters_schemas(EsStore *store)
{
	EsRegistry *registry = es_registry_open(store);
	StringInfoData schemas;

	initStringInfo(&schemas);
	for (int i = 0; i < registry->nupcasters; i++)
		appendStringInfo(&schemas, ", %s",
						 quote_identifier(strVal(linitial(textToQualifiedNameList(registry->upcasters[i].function)))));
	return schemas.data;
}

/*
 * es_upcast_event is eventsrc.upcast(event, store): the event, a row of events,
 * as the store's upcasters make it.
 */
Datum
es_upcast_event(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	TupleDesc	want = es_event_tupdesc();
	EsUpcasters *upcasters = es_upcasters_open(es_store_open(es_store_name_arg(fcinfo, 1), AccessShareLock));
	HeapTupleData tuple;
	TupleTableSlot *slot;
	Datum		result;

	for (int i = 0; i < ES_NATTS; i++)
	{
		if (i >= desc->natts || TupleDescAttr(desc, i)->atttypid != TupleDescAttr(want, i)->atttypid)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_ARGUMENT),
					 errmsg("the row is not one of an events table"),
					 errhint("Pass a row with the columns of es_event.")));
	}
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(&tuple, slot, false);
	result = es_event_datum(upcasters ? es_upcast(upcasters, slot) : slot);
	ExecDropSingleTupleTableSlot(slot);
	ReleaseTupleDesc(desc);
	if (upcasters)
		es_upcasters_close(upcasters);
	PG_RETURN_DATUM(result);
}
