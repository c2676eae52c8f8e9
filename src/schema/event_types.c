/*
 * event_types.c
 *		Checks events by what is registered about their types, and the private
 *		SQL functions that es_create_event_type() is made of.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "schema/registry.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_check_json_schema);
PG_FUNCTION_INFO_V1(es_event_type_failure);
PG_FUNCTION_INFO_V1(es_json_schema_breaks);
PG_FUNCTION_INFO_V1(es_json_schema_failure);
PG_FUNCTION_INFO_V1(es_json_schema_missing);

/*
 * compiled_schema returns a version's schema, compiled when it is first needed.
 */
static EsSchema *
compiled_schema(EsRegistry *registry, EsTypeVersion *version)
{
	if (version->schema == NULL)
	{
		/* what an error leaves half done goes with the current context */
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc schema",
													  ALLOCSET_SMALL_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		EsSchema   *schema = es_schema_compile(version->json_schema);

		MemoryContextSwitchTo(old);
		MemoryContextSetParent(context, registry->context);
		version->schema = schema;
	}
	return version->schema;
}

/*
 * check_data refuses data that does not fit a version's schema.
 */
static void
check_data(EsRegistry *registry, EsTypeVersion *version, Datum data)
{
	static MemoryContext context = NULL;
	EsSchema   *schema = compiled_schema(registry, version);
	MemoryContext old;
	EsSchemaFailure failure;
	bool		fits;

	/* what a check allocates must not add up over the events of an append */
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "eventsrc schema check", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	fits = es_schema_check(schema, DatumGetJsonbP(data), &failure);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT),
				 errmsg("data does not fit the JSON Schema of event type \"%s\" version %d",
						text_to_cstring(version->event_type), version->version),
				 errdetail("At \"%s\", keyword \"%s\": %s.", failure.pointer, failure.keyword, failure.reason),
				 errhint("Correct the data; if it is the schema that is wrong, register its next version with es_create_event_type().")));
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/*
 * is_own_type tells whether an event type is one that functions of ours append,
 * which needs no registration.
 */
static bool
is_own_type(text *event_type)
{
	static const char *const types[] = {ES_CLOSING_TYPE, ES_RESTORED_TYPE};

	for (int i = 0; i < lengthof(types); i++)
	{
		if (es_text_is(event_type, types[i]))
			return true;
	}
	return false;
}

/*
 * es_event_check decides on the schema version of an event that is about to be
 * written (given or 0), and refuses data that does not fit its schema.
 */
int32
es_event_check(EsStore *store, text *event_type, int32 schema_version, Datum data)
{
	EsRegistry *registry = es_registry_open(store);
	EsTypeVersion *version;

	if (!registry->checks)
		return schema_version > 0 ? schema_version : 1;

	version = es_registry_version(registry, event_type, schema_version > 0 ? schema_version : PG_INT32_MAX);
	if (version && schema_version > 0 && version->version != schema_version)
		version = NULL;
	if (version == NULL && registry->strict && !is_own_type(event_type))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT),
				 schema_version > 0 ?
				 errmsg("event type \"%s\" version %d is not registered", text_to_cstring(event_type), schema_version) :
				 errmsg("event type \"%s\" is not registered", text_to_cstring(event_type)),
				 errdetail("The store \"%s\" is strict: it takes events of registered types and versions only.",
						   NameStr(store->name)),
				 errhint("Register it with es_create_event_type(), or call es_set_strict(false).")));
	if (version == NULL)
		return schema_version > 0 ? schema_version : 1;
	if (version->json_schema)
		check_data(registry, version, data);
	return version->version;
}

/*
 * es_check_json_schema is eventsrc.check_json_schema(json_schema): raises an
 * error if it is none.
 */
Datum
es_check_json_schema(PG_FUNCTION_ARGS)
{
	(void) es_schema_compile(PG_GETARG_JSONB_P(0));
	PG_RETURN_VOID();
}

/*
 * es_json_schema_missing is eventsrc.json_schema_missing(json_schema): the URI
 * of a document that it refers to and does not hold; NULL if there is none.
 */
Datum
es_json_schema_missing(PG_FUNCTION_ARGS)
{
	char	   *missing = es_schema_missing(PG_GETARG_JSONB_P(0));

	if (missing == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(missing));
}

/*
 * es_json_schema_breaks is eventsrc.json_schema_breaks(narrow, wide): what
 * keeps the wide schema from accepting all that the narrow one accepts.
 */
Datum
es_json_schema_breaks(PG_FUNCTION_ARGS)
{
	EsSchema   *narrow = PG_ARGISNULL(0) ? NULL : es_schema_compile(PG_GETARG_JSONB_P(0));
	EsSchema   *wide = PG_ARGISNULL(1) ? NULL : es_schema_compile(PG_GETARG_JSONB_P(1));
	char	   *breaks = es_schema_breaks(narrow, wide);

	if (breaks == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(breaks));
}

/*
 * es_json_schema_failure is eventsrc.json_schema_failure(json_schema, data):
 * why data does not fit a schema; NULL if it fits.
 */
Datum
es_json_schema_failure(PG_FUNCTION_ARGS)
{
	EsSchema   *schema = es_schema_compile(PG_GETARG_JSONB_P(0));
	EsSchemaFailure failure;

	if (es_schema_check(schema, PG_GETARG_JSONB_P(1), &failure))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("At \"%s\", keyword \"%s\": %s.",
											  failure.pointer, failure.keyword, failure.reason)));
}

/*
 * es_event_type_failure is eventsrc.event_type_failure(event_type,
 * schema_version, data, store): why the data of an event does not fit the
 * schema of its type's last version; NULL if it fits.
 */
Datum
es_event_type_failure(PG_FUNCTION_ARGS)
{
	text	   *event_type = PG_GETARG_TEXT_PP(0);
	EsStore    *store = es_store_open(es_store_name_arg(fcinfo, 3), AccessShareLock);
	EsRegistry *registry = es_registry_open(store);
	EsTypeVersion *version = es_registry_version(registry, event_type, PG_INT32_MAX);
	EsSchemaFailure failure;

	if (version == NULL || version->json_schema == NULL ||
		es_schema_check(compiled_schema(registry, version), PG_GETARG_JSONB_P(2), &failure))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("As %s version %d it does not fit the schema of version %d. At \"%s\", keyword \"%s\": %s.",
											  text_to_cstring(event_type), PG_GETARG_INT32(1), version->version,
											  failure.pointer, failure.keyword, failure.reason)));
}
