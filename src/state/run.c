/*
 * run.c
 *		Runs a reducer's program (program.c) for an event.
 *
 * What is added to the state waits until the program returns: it may stop
 * before that, and then nothing has happened.
 */
#include "state/program.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/expandeddatum.h"
#include "utils/snapmgr.h"

typedef enum RunResult
{
	RUN_ON,						/* to the next step */
	RUN_RETURN,
	RUN_STOP
} RunResult;

static RunResult run_steps(EsProgram *program, List *steps);
static RunResult run_branch(EsProgram *program, EsProgramStep *step);
static bool assign(EsProgram *program, EsProgramStep *step);
static bool change_state(EsProgram *program, EsProgramExpr *expr);
static Datum evaluate(EsProgram *program, EsProgramExpr *expr, bool *isnull);
static inline void begin_expr(EsProgramExpr *expr);
static inline void end_expr(EsProgramExpr *expr);
static bool holds(EsProgram *program, EsProgramExpr *condition);
static void add_part(EsProgram *program, Jsonb *part);
static bool is_object(EsProgram *program);
static Datum write_state(EsProgram *program, bool *isnull);
static void set_value(EsProgram *program, Datum value, bool isnull);
static void read_key(EsProgram *program, EsProgramParam *param, ParamExternData *result);
static bool find_key(EsProgram *program, EsProgramParam *param, JsonbValue *value);
static bool find_in(Jsonb *object, EsProgramParam *param, JsonbValue *value);
static Datum value_as_text(JsonbValue *value, bool *isnull);
static void read_column(EsProgram *program, int column, ParamExternData *result);

/*
 * es_program_run runs a program for an event, in a memory context that is reset
 * thereafter.  The state is merge, or if that is NULL, state.  False: the program
 * stopped, and the function has to be called.
 */
bool
es_program_run(EsProgram *program, TupleTableSlot *slot, EsMerge *merge, Datum state)
{
	RunResult	result;

	program->runs++;
	program->slot = slot;
	program->merge = merge;
	program->state = state;
	program->event.isnull = true;
	for (int i = 0; i < ES_NATTS; i++)
		program->columns[i].isnull = true;
	program->assigned = false;
	program->written = false;
	program->nparts = 0;
	ResetExprContext(program->econtext);

	result = run_steps(program, program->code->steps);
	program->where = NULL;
	if (result == RUN_RETURN)
		return true;
	program->stops++;
	return false;
}

/*
 * es_program_parts returns what the program adds to the state, one after the
 * other; -1 if it made another one.
 */
int
es_program_parts(EsProgram *program, Jsonb ***parts)
{
	*parts = program->parts;
	return program->assigned ? -1 : program->nparts;
}

/*
 * es_program_opens tells whether it is worth while to open the state for the
 * parts that the program adds: not if it is mostly written anew.
 */
bool
es_program_opens(EsProgram *program)
{
	return program->writes < 16 || program->writes < program->adds;
}

/*
 * es_program_write writes the state that the program made.
 */
Datum
es_program_write(EsProgram *program)
{
	bool		isnull;

	return write_state(program, &isnull);
}

/*
 * es_program_where tells where in the reducer the program is, for an error's
 * context; NULL if it does not run.
 */
const char *
es_program_where(EsProgram *program)
{
	return program->where;
}

/*
 * run_steps runs steps.
 */
static RunResult
run_steps(EsProgram *program, List *steps)
{
	ListCell   *cell;
	RunResult	result;

	foreach(cell, steps)
	{
		EsProgramStep *step = lfirst(cell);

		program->where = step->where;
		switch (step->kind)
		{
			case ES_STEP_ASSIGN:
				if (!assign(program, step))
					return RUN_STOP;
				break;
			case ES_STEP_BRANCH:
				result = run_branch(program, step);
				if (result != RUN_ON)
					return result;
				break;
			case ES_STEP_RETURN:
				if (!change_state(program, step->expr))
					return RUN_STOP;
				return program->assigned && program->value.isnull ? RUN_STOP : RUN_RETURN;
			case ES_STEP_STOP:
				return RUN_STOP;
		}
	}
	return RUN_ON;
}

/*
 * run_branch runs the first arm of a branch whose condition holds.
 */
static RunResult
run_branch(EsProgram *program, EsProgramStep *step)
{
	ListCell   *cell;

	if (step->expr)
	{
		NullableDatum value;

		value.value = evaluate(program, step->expr, &value.isnull);
		if (step->target)
			program->variables[step->target - ES_PARAM_OTHER] = value;
		else
		{
			program->econtext->caseValue_datum = value.value;
			program->econtext->caseValue_isNull = value.isnull;
		}
	}
	foreach(cell, step->arms)
	{
		EsProgramArm *arm = lfirst(cell);

		if (holds(program, arm->condition))
			return run_steps(program, arm->steps);
	}
	return run_steps(program, step->otherwise);
}

/*
 * assign gives a variable or the state its new value; false if it cannot.
 */
static bool
assign(EsProgram *program, EsProgramStep *step)
{
	NullableDatum new = {0};

	if (step->target == ES_PARAM_STATE)
		return change_state(program, step->expr);
	new.isnull = true;
	if (step->expr)
		new.value = evaluate(program, step->expr, &new.isnull);
	program->variables[step->target - ES_PARAM_OTHER] = new;
	return true;
}

/*
 * change_state makes an expression's value the state; false if only the
 * function knows what comes of it.
 */
static bool
change_state(EsProgram *program, EsProgramExpr *expr)
{
	Jsonb	  **parts;
	ListCell   *cell;
	int			nparts = 0;
	Datum		value;
	bool		isnull;

	if (expr->eval.expr)
	{
		value = evaluate(program, expr, &isnull);
		set_value(program, value, isnull);
		return true;
	}
	if (expr->parts == NIL)
		return true;

	/* all of them look at the state as it was */
	begin_expr(expr);
	parts = palloc(sizeof(Jsonb *) * list_length(expr->parts));
	foreach(cell, expr->parts)
	{
		EsProgramPart *part = lfirst(cell);

		if (part->sets && !is_object(program))
			break;
		parts[nparts] = es_program_object(program, part);
		if (parts[nparts] == NULL)
			break;
		nparts++;
	}
	end_expr(expr);
	if (nparts < list_length(expr->parts) || (program->assigned && program->value.isnull))
		return false;
	for (int i = 0; i < nparts; i++)
	{
		/* what follows may be meant for an object, and find none */
		if (!JB_ROOT_IS_OBJECT(parts[i]) && nparts > 1)
			return false;
		add_part(program, parts[i]);
	}
	return true;
}

/*
 * evaluate evaluates an expression.
 */
static Datum
evaluate(EsProgram *program, EsProgramExpr *expr, bool *isnull)
{
	Datum		value;

	begin_expr(expr);
	value = ExecEvalExpr(es_program_ready(program, &expr->eval), program->econtext, isnull);
	end_expr(expr);
	return expr->is_varlena ? MakeExpandedObjectReadOnly(value, *isnull, -1) : value;
}

/*
 * es_program_prepare makes an expression ready to be evaluated.
 */
ExprState *
es_program_prepare(EsProgram *program, const EsProgramEval *eval)
{
	MemoryContext caller = MemoryContextSwitchTo(program->context);
	ExprState  *state = ExecInitExprWithParams(eval->expr, program->params);

	program->evals[eval->number] = state;
	MemoryContextSwitchTo(caller);
	return state;
}

/*
 * begin_expr gives an expression a snapshot of its own if it needs one, as
 * functions do that are volatile.
 */
static inline void
begin_expr(EsProgramExpr *expr)
{
	if (expr->snapshot)
	{
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
	}
}

/*
 * end_expr takes it away.
 */
static inline void
end_expr(EsProgramExpr *expr)
{
	if (expr->snapshot)
		PopActiveSnapshot();
}

/*
 * holds tells whether a condition is true.
 */
static bool
holds(EsProgram *program, EsProgramExpr *condition)
{
	bool		isnull;
	Datum		value = evaluate(program, condition, &isnull);

	return !isnull && DatumGetBool(value);
}

/*
 * add_part adds a part to the state, as || does.
 */
static void
add_part(EsProgram *program, Jsonb *part)
{
	Datum		state;
	bool		isnull;

	if (!program->assigned && JB_ROOT_IS_OBJECT(part) && is_object(program))
	{
		if (program->nparts == program->parts_room)
		{
			program->parts_room *= 2;
			program->parts = repalloc(program->parts, sizeof(Jsonb *) * program->parts_room);
		}
		program->parts[program->nparts++] = part;
		program->written = false;
		program->adds++;
		return;
	}
	state = write_state(program, &isnull);
	set_value(program, DirectFunctionCall2(jsonb_concat, state, JsonbPGetDatum(part)), false);
}

/*
 * is_object tells whether the state is an object.
 */
static bool
is_object(EsProgram *program)
{
	if (program->assigned)
		return !program->value.isnull && JB_ROOT_IS_OBJECT(DatumGetJsonbP(program->value.value));
	return program->merge || JB_ROOT_IS_OBJECT(DatumGetJsonbP(program->state));
}

/*
 * write_state returns the state as it is now, as jsonb.
 */
static Datum
write_state(EsProgram *program, bool *isnull)
{
	Datum		state;

	if (program->assigned)
	{
		*isnull = program->value.isnull;
		return program->value.value;
	}
	*isnull = false;
	if (program->written)
		return program->flat.value;
	if (program->merge)
	{
		state = JsonbPGetDatum(es_merge_state(program->merge));
		program->writes++;
	}
	else
		state = program->state;
	for (int i = 0; i < program->nparts; i++)
		state = DirectFunctionCall2(jsonb_concat, state, JsonbPGetDatum(program->parts[i]));
	program->flat.value = state;
	program->written = true;
	return state;
}

/*
 * set_value gives the state a value that has nothing to do with what it was.
 */
static void
set_value(EsProgram *program, Datum value, bool isnull)
{
	program->assigned = true;
	program->value.value = value;
	program->value.isnull = isnull;
	program->nparts = 0;
	program->writes++;
}

/*
 * es_program_fetch gives an expression the value of one of its Params.
 */
ParamExternData *
es_program_fetch(ParamListInfo params, int id, bool speculative, ParamExternData *result)
{
	EsProgram  *program = params->paramFetchArg;

	result->isnull = false;
	result->pflags = 0;
	if (id >= ES_PARAM_OTHER)
	{
		EsProgramParam *param = &program->code->others[id - ES_PARAM_OTHER];

		result->ptype = param->type;
		if (param->key)
			read_key(program, param, result);
		else
		{
			NullableDatum *variable = &program->variables[id - ES_PARAM_OTHER];

			result->value = variable->value;
			result->isnull = variable->isnull;
		}
	}
	else if (id >= ES_PARAM_COLUMN)
		read_column(program, id - ES_PARAM_COLUMN, result);
	else if (id == ES_PARAM_EVENT)
	{
		if (program->event.isnull)
		{
			program->event.value = es_event_datum(program->slot);
			program->event.isnull = false;
		}
		result->ptype = es_event_type();
		result->value = program->event.value;
	}
	else
	{
		result->ptype = JSONBOID;
		result->value = write_state(program, &result->isnull);
	}
	return result;
}

/*
 * read_key looks at a key of the state.
 */
static void
read_key(EsProgram *program, EsProgramParam *param, ParamExternData *result)
{
	JsonbValue	value;

	result->value = (Datum) 0;
	result->isnull = !find_key(program, param, &value);
	if (result->isnull)
		return;
	if (param->as_text)
		result->value = value_as_text(&value, &result->isnull);
	else
		result->value = JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/*
 * find_key finds the value of a key: in what was added last, or in the state.
 */
static bool
find_key(EsProgram *program, EsProgramParam *param, JsonbValue *value)
{
	if (program->assigned)
		return !program->value.isnull && find_in(DatumGetJsonbP(program->value.value), param, value);
	for (int i = program->nparts - 1; i >= 0; i--)
	{
		if (find_in(program->parts[i], param, value))
			return true;
	}
	if (program->merge)
		return es_merge_find(program->merge, param->key, param->keylen, value);
	return find_in(DatumGetJsonbP(program->state), param, value);
}

/*
 * find_in finds the value of a key in jsonb, if that is an object that has it.
 */
static bool
find_in(Jsonb *object, EsProgramParam *param, JsonbValue *value)
{
	return JB_ROOT_IS_OBJECT(object) &&
		getKeyJsonValueFromContainer(&object->root, param->key, param->keylen, value) != NULL;
}

/*
 * value_as_text writes a value as ->> does.
 */
static Datum
value_as_text(JsonbValue *value, bool *isnull)
{
	StringInfoData text;

	switch (value->type)
	{
		case jbvNull:
			*isnull = true;
			return (Datum) 0;
		case jbvBool:
			return PointerGetDatum(cstring_to_text(value->val.boolean ? "true" : "false"));
		case jbvString:
			return PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
															value->val.string.len));
		case jbvNumeric:
			return PointerGetDatum(cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out,
																					   NumericGetDatum(value->val.numeric)))));
		default:
			initStringInfo(&text);
			(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
			return PointerGetDatum(cstring_to_text_with_len(text.data, text.len));
	}
}

/*
 * read_column reads a column of the event; what is jsonb, once and for all as it
 * can be looked into.
 */
static void
read_column(EsProgram *program, int column, ParamExternData *result)
{
	TupleTableSlot *slot = program->slot;
	NullableDatum *kept = &program->columns[column];

	result->ptype = TupleDescAttr(es_event_tupdesc(), column)->atttypid;
	if (!kept->isnull)
	{
		result->value = kept->value;
		return;
	}
	result->value = slot_getattr(slot, column + 1, &result->isnull);
	if (!result->isnull && result->ptype == JSONBOID)
	{
		result->value = JsonbPGetDatum(DatumGetJsonbP(result->value));
		*kept = (NullableDatum)
		{
			result->value, false
		};
	}
}
