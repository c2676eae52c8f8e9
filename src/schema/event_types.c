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
PG_FUNCTION_INFO_V1(es_json_schema_breaks);
PG_FUNCTION_INFO_V1(es_json_schema_failure);

/*
 * check_data refuses data that does not fit a version's schema.
 */
static void
check_data(EsRegistry *registry, EsTypeVersion *version, Datum data)
{
	static MemoryContext context = NULL;
	MemoryContext old;
	EsSchemaFailure failure;
	bool		fits;

	if (version->schema == NULL)
	{
		old = MemoryContextSwitchTo(registry->context);
		version->schema = es_schema_compile(version->json_schema);
		MemoryContextSwitchTo(old);
	}

	/* what a check allocates must not add up over the events of an append */
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "eventsrc schema check", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	fits = es_schema_check(version->schema, DatumGetJsonbP(data), &failure);
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
