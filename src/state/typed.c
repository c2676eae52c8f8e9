/*
 * typed.c
 *		States of composite types: (order_state, es_event) -> order_state.
 *
 * Such a state is a row while events are folded, and jsonb where it is kept
 * (initial states, snapshots) and returned.  It is converted as by
 * jsonb_populate_record() and to_jsonb().
 */
#include "state/state.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

static void prepare_conversion(FmgrInfo *call, MemoryContext context, Oid function,
							   Oid result, Oid argument);

/*
 * es_typed_prepare sets up the conversions of a reducer's state.
 */
void
es_typed_prepare(EsReducer *reducer)
{
	prepare_conversion(&reducer->from_jsonb, reducer->context,
					   F_JSONB_POPULATE_RECORD, reducer->state_type,
					   reducer->state_type);
	prepare_conversion(&reducer->to_jsonb, reducer->context, F_TO_JSONB,
					   JSONBOID, reducer->state_type);
}

/*
 * es_typed_from_jsonb makes a row of a state, in the current memory context.
 * JSON null is NULL.
 */
Datum
es_typed_from_jsonb(EsReducer *reducer, Jsonb *state, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		row;

	*isnull = false;
	if (JB_ROOT_IS_SCALAR(state))
	{
		JsonbValue	value;

		if (JsonbExtractScalar(&state->root, &value) && value.type == jbvNull)
		{
			*isnull = true;
			return (Datum) 0;
		}
	}
	InitFunctionCallInfoData(*fcinfo, &reducer->from_jsonb, 2,
							 DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = (Datum) 0;
	fcinfo->args[0].isnull = true;
	fcinfo->args[1].value = JsonbPGetDatum(state);
	fcinfo->args[1].isnull = false;
	row = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return row;
}

/*
 * es_typed_to_jsonb makes jsonb of a row, in the current memory context; JSON
 * null of NULL.
 */
Jsonb *
es_typed_to_jsonb(EsReducer *reducer, Datum state, bool isnull)
{
	if (isnull)
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("null")));
	return DatumGetJsonbP(FunctionCall1(&reducer->to_jsonb, state));
}

/*
 * es_typed_generation returns a number that changes when the type of a
 * reducer's state does; 0 for a state that is jsonb.
 */
uint64
es_typed_generation(Oid reducer)
{
	Oid			type = OidIsValid(reducer) ? get_func_rettype(reducer) : JSONBOID;

	if (type == JSONBOID || !type_is_rowtype(type))
		return 0;
	return lookup_type_cache(type, TYPECACHE_TUPDESC)->tupDesc_identifier;
}

/*
 * es_typed_description lists the columns of a reducer's state and their types;
 * NULL for a state that is jsonb.  It is part of the reducer's identity.
 */
char *
es_typed_description(Oid reducer)
{
	Oid			type = get_func_rettype(reducer);
	TupleDesc	desc;
	StringInfoData result;

	if (type == JSONBOID)
		return NULL;
	desc = lookup_rowtype_tupdesc(type, -1);
	initStringInfo(&result);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped)
			appendStringInfo(&result, "%s %s\n", NameStr(column->attname),
							 format_type_extended(column->atttypid, column->atttypmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN |
												  FORMAT_TYPE_FORCE_QUALIFY));
	}
	ReleaseTupleDesc(desc);
	return result.data;
}

/*
 * prepare_conversion sets up a call of a polymorphic function, which looks for
 * the type of its first argument in the expression that it is called by.
 */
static void
prepare_conversion(FmgrInfo *call, MemoryContext context, Oid function,
				   Oid result, Oid argument)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	Node	   *expression;

	expression = (Node *) makeFuncExpr(function, result,
									   list_make1(makeNullConst(argument, -1, InvalidOid)),
									   InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	fmgr_info_cxt(function, call, context);
	fmgr_info_set_expr(expression, call);
	MemoryContextSwitchTo(caller);
}
