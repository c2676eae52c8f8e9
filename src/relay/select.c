/*
 * select.c
 *		Which events a relay sends, and the functions of users that say so.
 *
 * The functions are kept by name, as reducers are, and called directly, with
 * the rights of the relay's owner, who must be able to call them.
 */
#include "relay/content.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "read/scan.h"
#include "store/store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

typedef struct Wanted
{
	const char *text;
	int			length;
} Wanted;

struct EsSelect
{
	const char *relay;
	int			naggregate_types;
	Wanted	   *aggregate_types;
	int			nevent_types;
	Wanted	   *event_types;
	const char *filter_name;
	const char *transform_name;
	FmgrInfo	filter;			/* fn_oid 0: none */
	FmgrInfo	transform;
};

/* what the error context tells */
typedef struct Call
{
	const EsSelect *select;
	const char *option;
	const char *function;
	int64		position;
	char	   *event_id;
} Call;

static Oid	find_function(const char *name);
static Wanted *names_of(List *strings, int *count);
static bool is_among(const Wanted *names, int count, TupleTableSlot *slot, int column);
static Datum call_function(EsSelect *select, FmgrInfo *function, const char *option,
						   const char *name, TupleTableSlot *slot, Datum event, bool *isnull);
static void describe_call(void *arg);

/*
 * es_select_check raises an error unless a function that a user names can be
 * called with an event and gives the result, and returns its full name.
 */
char *
es_select_check(const char *function, const char *option, Oid result)
{
	Oid			types[] = {es_event_type()};
	List	   *names = textToQualifiedNameList(cstring_to_text(function));
	Oid			oid = list_length(names) <= 2 ? LookupFuncName(names, 1, types, true) : InvalidOid;
	HeapTuple	tuple;
	Form_pg_proc procedure;
	char	   *name;

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("function %s(es_event) does not exist", function),
				 errdetail("The option \"%s\" names it.", option),
				 errhint("Write its name alone, with its schema if that is not in the search_path; it must take one es_event and return %s.",
						 format_type_be(result))));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", oid);
	procedure = (Form_pg_proc) GETSTRUCT(tuple);
	if (procedure->prokind != PROKIND_FUNCTION || procedure->proretset || procedure->prorettype != result)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("%s cannot serve as %s", format_procedure(oid), option),
				 errdetail("It returns %s%s, not %s.", procedure->proretset ? "a set of " : "",
						   format_type_be(procedure->prorettype), format_type_be(result)),
				 errhint("A %s is a function (event es_event) RETURNS %s.", option, format_type_be(result))));
	ReleaseSysCache(tuple);
	if (es_proc_aclcheck(oid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", function)));

	name = quote_qualified_identifier(get_namespace_name(get_func_namespace(oid)), get_func_name(oid));
	return name;
}

/*
 * es_select_problem says what keeps a relay's owner from calling its functions,
 * or returns NULL.
 */
char *
es_select_problem(const EsContent *content, Oid owner)
{
	const char *functions[] = {content->filter, content->transform};
	const char *options[] = {"filter", "transform"};

	for (int i = 0; i < lengthof(functions); i++)
	{
		Oid			function;

		if (functions[i] == NULL)
			continue;
		function = find_function(functions[i]);
		if (!OidIsValid(function))
			return psprintf("the relay's %s %s(es_event) is gone: create it again or choose another with es_alter_relay()",
							options[i], functions[i]);
		if (es_proc_aclcheck(function, owner, ACL_EXECUTE) != ACLCHECK_OK ||
			es_schema_aclcheck(get_func_namespace(function), owner, ACL_USAGE) != ACLCHECK_OK)
			return psprintf("the relay's owner \"%s\" may not call its %s %s(es_event)",
							GetUserNameFromId(owner, true), options[i], functions[i]);
		if (get_func_rettype(function) != (i == 0 ? BOOLOID : JSONBOID) || get_func_retset(function))
			return psprintf("the relay's %s %s(es_event) no longer returns %s",
							options[i], functions[i], i == 0 ? "boolean" : "jsonb");
	}
	return NULL;
}

/*
 * es_select_create prepares the choice of events, in the current memory
 * context; the relay has no problem.
 */
EsSelect *
es_select_create(const EsRelay *relay)
{
	EsSelect   *select = palloc0(sizeof(EsSelect));
	const EsContent *content = relay->content;

	select->relay = NameStr(relay->name);
	select->aggregate_types = names_of(content->aggregate_types, &select->naggregate_types);
	select->event_types = names_of(content->event_types, &select->nevent_types);
	select->filter_name = content->filter;
	select->transform_name = content->transform;
	if (content->filter != NULL)
		fmgr_info(find_function(content->filter), &select->filter);
	if (content->transform != NULL)
		fmgr_info(find_function(content->transform), &select->transform);
	return select;
}

/*
 * es_select tells whether an event is to be sent, and sets data to what takes
 * the place of its data (or leaves it alone).
 */
bool
es_select(EsSelect *select, TupleTableSlot *slot, Datum *data)
{
	Datum		event;
	Datum		result;
	bool		isnull;

	if (select->naggregate_types > 0 &&
		!is_among(select->aggregate_types, select->naggregate_types, slot, ES_ATT_AGGREGATE_TYPE))
		return false;
	if (select->nevent_types > 0 &&
		!is_among(select->event_types, select->nevent_types, slot, ES_ATT_EVENT_TYPE))
		return false;
	if (!OidIsValid(select->filter.fn_oid) && !OidIsValid(select->transform.fn_oid))
		return true;

	event = es_event_datum(slot);
	if (OidIsValid(select->filter.fn_oid))
	{
		result = call_function(select, &select->filter, "filter", select->filter_name, slot, event, &isnull);
		if (isnull || !DatumGetBool(result))
			return false;
	}
	if (OidIsValid(select->transform.fn_oid))
	{
		result = call_function(select, &select->transform, "transform", select->transform_name, slot, event, &isnull);
		if (isnull)
			return false;
		*data = result;
	}
	return true;
}

/*
 * find_function finds a function by the name that es_select_check() gave it.
 */
static Oid
find_function(const char *name)
{
	Oid			types[] = {es_event_type()};
	List	   *names = textToQualifiedNameList(cstring_to_text(name));
	Oid			schema = get_namespace_oid(strVal(linitial(names)), true);

	if (list_length(names) != 2 || !OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(strVal(lsecond(names))),
						   PointerGetDatum(buildoidvector(types, 1)),
						   ObjectIdGetDatum(schema));
}

/*
 * names_of makes an array of a list of strings.
 */
static Wanted *
names_of(List *strings, int *count)
{
	Wanted	   *names = palloc(sizeof(Wanted) * (list_length(strings) + 1));
	ListCell   *cell;

	*count = 0;
	foreach(cell, strings)
	{
		names[*count].text = lfirst(cell);
		names[(*count)++].length = strlen(lfirst(cell));
	}
	return names;
}

/*
 * is_among tells whether a text column is one of the names.
 */
static bool
is_among(const Wanted *names, int count, TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);
	text	   *string = DatumGetTextPP(value);
	int			length = VARSIZE_ANY_EXHDR(string);

	for (int i = 0; i < count; i++)
	{
		if (names[i].length == length && memcmp(names[i].text, VARDATA_ANY(string), length) == 0)
			return true;
	}
	return false;
}

/*
 * call_function calls a user's function with an event.
 */
static Datum
call_function(EsSelect *select, FmgrInfo *function, const char *option, const char *name,
			  TupleTableSlot *slot, Datum event, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	ErrorContextCallback callback;
	Call		call = {select, option, name};
	Datum		result;
	bool		absent;

	/* a strict function gives NULL only for a NULL event */
	call.position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &absent));
	call.event_id = TextDatumGetCString(slot_getattr(slot, ES_ATT_EVENT_ID, &absent));
	callback.callback = describe_call;
	callback.arg = &call;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = event;
	fcinfo->args[0].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;

	error_context_stack = callback.previous;
	return result;
}

/*
 * describe_call tells in an error's context which relay called for which event.
 */
static void
describe_call(void *arg)
{
	Call	   *call = arg;

	errcontext("relay \"%s\", position " INT64_FORMAT ", event \"%s\", %s %s",
			   call->select->relay, call->position, call->event_id, call->option, call->function);
}
