/*
 * reducer.c
 *		Reducers: which functions can serve as one, and their identity.
 *
 * A snapshot is good only for the reducer and the initial state that made it,
 * so it carries their identity: the reducer's name and a hash of its whole
 * definition, of all that we can see it calls (schema/depend.c), and of the
 * initial state.  It holds no OIDs and thus survives dump and restore.
 * Identities are kept per backend until a function changes.
 */
#include "state/state.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "schema/depend.h"

/* the built-in merge; the number changes when its answers do */
#define MERGE_IDENTITY	"merge/1"

typedef struct ReducerEntry
{
	Oid			reducer;		/* hash key; InvalidOid: built-in merge */
	bool		valid;
	uint64		state_type;		/* generation of a typed state's type */
	List	   *tables;			/* whose columns are part of the definition */
	Jsonb	   *initial;
	char	   *identity;
} ReducerEntry;

static HTAB *reducers = NULL;
static MemoryContext reducer_context = NULL;

static void init_cache(void);
static void forget_reducers(Datum arg, int cacheid, uint32 hashvalue);
static void forget_types(Datum arg, Oid relid);
static char *compute_identity(Oid reducer, Jsonb *initial, List **tables);
static Oid	find_typed(text *name);
static bool is_state_type(Oid type);
static const char *describe_mismatch(Form_pg_proc procedure);

/*
 * es_reducer_check raises ERRCODE_ES_INVALID_AGGREGATE unless the function can
 * be called as (state jsonb, event es_event) RETURNS jsonb.
 */
void
es_reducer_check(Oid reducer)
{
	HeapTuple	tuple;
	const char *mismatch;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(reducer));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", reducer)));

	mismatch = describe_mismatch((Form_pg_proc) GETSTRUCT(tuple));
	if (mismatch)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_AGGREGATE),
				 errmsg("%s cannot serve as reducer",
						format_procedure(reducer)),
				 errdetail("%s A reducer is a function (state jsonb, event es_event) RETURNS jsonb, or the same with a composite type in place of jsonb.",
						   mismatch),
				 errhint("For example: CREATE FUNCTION my_reducer(state jsonb, event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql RETURN state || event.data;")));
	ReleaseSysCache(tuple);
}

/*
 * es_reducer_name returns the name by which a reducer is registered.  It is
 * kept as text, not as regprocedure, which pg_upgrade refuses in tables.  The
 * argument types are mentioned only where the state is not jsonb.
 */
char *
es_reducer_name(Oid reducer)
{
	if (get_func_rettype(reducer) != JSONBOID)
		return format_procedure_qualified(reducer);
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(reducer)),
									  get_func_name(reducer));
}

/*
 * es_reducer_find finds the reducer of a name that es_reducer_name() made;
 * raises ERRCODE_ES_REDUCER_FAILED if it is gone.
 */
Oid
es_reducer_find(text *name)
{
	Oid			types[2] = {JSONBOID, es_event_type()};
	bool		typed = VARSIZE_ANY_EXHDR(name) > 0 &&
		VARDATA_ANY(name)[VARSIZE_ANY_EXHDR(name) - 1] == ')';
	List	   *names = typed ? NIL : textToQualifiedNameList(name);
	Oid			reducer = InvalidOid;

	if (typed)
		reducer = find_typed(name);
	else if (list_length(names) == 2)
	{
		Oid			schema = get_namespace_oid(strVal(linitial(names)), true);

		if (OidIsValid(schema))
			reducer = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
									  CStringGetDatum(strVal(lsecond(names))),
									  PointerGetDatum(buildoidvector(types, 2)),
									  ObjectIdGetDatum(schema));
	}
	if (!OidIsValid(reducer))
		ereport(ERROR,
				(errcode(ERRCODE_ES_REDUCER_FAILED),
				 errmsg("reducer %s does not exist", text_to_cstring(name)),
				 errdetail("The aggregate type's reducer was dropped, renamed or moved since it was registered."),
				 errhint("Create the function %s%s again, or register another with es_create_aggregate().",
						 text_to_cstring(name),
						 typed ? "" : "(state jsonb, event es_event)")));
	return reducer;
}

/*
 * find_typed finds a function by its name with argument types.
 */
static Oid
find_typed(text *name)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	call;
	Datum		found;

	fmgr_info(F_TO_REGPROCEDURE, &call);
	InitFunctionCallInfoData(*fcinfo, &call, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(name);
	fcinfo->args[0].isnull = false;
	found = FunctionCallInvoke(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(found);
}

/*
 * es_reducer_prepare sets up a reducer to be called, unless it is so already.
 */
void
es_reducer_prepare(EsReducer *reducer, Oid function)
{
	if (reducer->function == function)
		return;
	reducer->function = InvalidOid;
	fmgr_info_cxt(function, &reducer->call, reducer->context);
	reducer->patch = reducer->call.fn_addr == es_merge_patch;
	reducer->state_type = get_func_rettype(function);
	if (reducer->state_type != JSONBOID)
		es_typed_prepare(reducer);
	reducer->program = NULL;
	reducer->builds = 0;
	reducer->opaque = false;
	reducer->function = function;
}

/*
 * es_reducer_check_acl raises 42501 unless the current user may execute the
 * reducer.
 */
void
es_reducer_check_acl(Oid reducer)
{
	AclResult	aclresult;

	aclresult = es_proc_aclcheck(reducer, GetUserId(), ACL_EXECUTE);
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FUNCTION, get_func_name(reducer));
	InvokeFunctionExecuteHook(reducer);
}

/*
 * es_reducer_identity returns the identity of a reducer (checked on the way)
 * with an initial state, in the current memory context.
 */
const char *
es_reducer_identity(Oid reducer, Jsonb *initial)
{
	ReducerEntry *entry;
	MemoryContext caller = CurrentMemoryContext;
	char	   *identity;
	Jsonb	   *kept;
	List	   *tables = NIL;
	bool		found;

	if (reducers == NULL)
		init_cache();

	entry = hash_search(reducers, &reducer, HASH_ENTER, &found);
	if (found && entry->valid &&
		entry->state_type == es_typed_generation(reducer) &&
		VARSIZE(entry->initial) == VARSIZE(initial) &&
		memcmp(entry->initial, initial, VARSIZE(initial)) == 0)
		return pstrdup(entry->identity);

	if (!found)
	{
		entry->initial = NULL;
		entry->identity = NULL;
		entry->tables = NIL;
	}

	/*
	 * An invalidation that arrives while the identity is computed makes the
	 * entry invalid again, though valid was set before.
	 */
	entry->valid = true;
	PG_TRY();
	{
		if (OidIsValid(reducer))
			es_reducer_check(reducer);
		entry->state_type = es_typed_generation(reducer);
		identity = compute_identity(reducer, initial, &tables);
		MemoryContextSwitchTo(reducer_context);
		list_free(entry->tables);
		entry->tables = list_copy(tables);
		kept = palloc(VARSIZE(initial));
		memcpy(kept, initial, VARSIZE(initial));
		if (entry->identity)
			pfree(entry->identity);
		entry->identity = NULL;
		if (entry->initial)
			pfree(entry->initial);
		entry->initial = kept;
		entry->identity = pstrdup(identity);
	}
	PG_CATCH();
	{
		entry->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller);
	return identity;
}

/*
 * init_cache makes the backend's cache of identities.
 */
static void
init_cache(void)
{
	HASHCTL		ctl = {0};

	if (reducer_context == NULL)
	{
		reducer_context = AllocSetContextCreate(TopMemoryContext,
												"eventsrc reducers",
												ALLOCSET_SMALL_SIZES);
		CacheRegisterSyscacheCallback(PROCOID, forget_reducers, (Datum) 0);
		CacheRegisterRelcacheCallback(forget_types, (Datum) 0);
	}
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(ReducerEntry);
	ctl.hcxt = reducer_context;
	reducers = hash_create("eventsrc reducers", 16, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * forget_reducers marks reducers as no longer known, as they may call whatever
 * changed in pg_proc; the built-in merge calls nothing.
 */
static void
forget_reducers(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	ReducerEntry *entry;

	if (reducers == NULL)
		return;
	hash_seq_init(&status, reducers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (OidIsValid(entry->reducer))
			entry->valid = false;
	}
}

/*
 * forget_types marks reducers as no longer known that use a composite type that
 * changed.
 */
static void
forget_types(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	ReducerEntry *entry;

	if (reducers == NULL)
		return;
	hash_seq_init(&status, reducers);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->tables && (!OidIsValid(relid) || list_member_oid(entry->tables, relid)))
			entry->valid = false;
	}
}

/*
 * compute_identity names and hashes a reducer's definition and its initial
 * state.  The definition is what pg_get_functiondef() prints of it and of what
 * it calls, with a fixed search_path, so that everybody sees the same names in
 * it.  Relations that it depends on are returned in tables.
 */
static char *
compute_identity(Oid reducer, Jsonb *initial, List **tables)
{
	StringInfoData input;
	Datum		hash;
	const char *name = MERGE_IDENTITY;
	const uint8 *bytes;
	StringInfoData result;

	initStringInfo(&input);
	if (OidIsValid(reducer))
	{
		int			nestlevel = NewGUCNestLevel();
		char	   *columns;

		(void) set_config_option("search_path", "pg_catalog",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		es_describe_function(&input, reducer, tables);
		name = es_reducer_name(reducer);
		AtEOXact_GUC(true, nestlevel);
		columns = es_typed_description(reducer);
		if (columns)
			appendStringInfo(&input, "\n%s", columns);
	}
	appendStringInfoChar(&input, '\n');
	(void) JsonbToCString(&input, &initial->root, VARSIZE(initial));

	hash = DirectFunctionCall1(sha256_bytea,
							   PointerGetDatum(cstring_to_text_with_len(input.data, input.len)));
	bytes = (const uint8 *) VARDATA_ANY(DatumGetPointer(hash));

	/* half of the hash is plenty to tell one's own versions apart */
	initStringInfo(&result);
	appendStringInfo(&result, "%s#", name);
	for (int i = 0; i < 16; i++)
		appendStringInfo(&result, "%02x", bytes[i]);
	return result.data;
}

/*
 * describe_mismatch says what keeps a function from being a reducer, or
 * returns NULL.
 */
static const char *
describe_mismatch(Form_pg_proc procedure)
{
	switch (procedure->prokind)
	{
		case PROKIND_FUNCTION:
			break;
		case PROKIND_PROCEDURE:
			return "It is a procedure.";
		case PROKIND_AGGREGATE:
			return "It is an aggregate.";
		case PROKIND_WINDOW:
			return "It is a window function.";
		default:
			return "It is not a plain function.";
	}
	if (procedure->proretset)
		return "It returns a set.";
	if (procedure->pronargs != 2)
		return psprintf("It takes %d argument(s), not two.",
						procedure->pronargs);
	if (!is_state_type(procedure->proargtypes.values[0]))
		return psprintf("Its first argument is of type %s, not jsonb.",
						format_type_be(procedure->proargtypes.values[0]));
	if (procedure->proargtypes.values[1] != es_event_type())
		return psprintf("Its second argument is of type %s, not es_event.",
						format_type_be(procedure->proargtypes.values[1]));
	if (procedure->prorettype != procedure->proargtypes.values[0])
		return psprintf("It returns %s, not %s.",
						format_type_be(procedure->prorettype),
						format_type_be(procedure->proargtypes.values[0]));
	return NULL;
}

/*
 * is_state_type tells whether a type can be a state's: jsonb, or a composite
 * type.
 */
static bool
is_state_type(Oid type)
{
	return type == JSONBOID ||
		(get_typtype(type) == TYPTYPE_COMPOSITE && !IsPolymorphicType(type));
}
