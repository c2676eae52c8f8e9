/*
 * run.c
 *		Runs a reducer's program (program.c) for an event.
 *
 * What is added to the state waits until the program returns: it may stop
 * before that, and then nothing has happened.
 */
#include "state/program.h"

#include "access/xact.h"
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
static void add_part(EsProgram *program, EsProgramAdded *part);
static bool adds_object(EsProgramAdded *part);
static bool is_object(EsProgram *program);
static void set_value(EsProgram *program, Datum value, bool isnull);

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
 * es_program_parts returns how many parts the program adds to the state; -1 if
 * it made another one.
 */
int
es_program_parts(EsProgram *program)
{
	return program->assigned ? -1 : program->nparts;
}

/*
 * es_program_add adds these parts, one after the other.
 */
void
es_program_add(EsProgram *program, EsMerge *merge)
{
	for (int i = 0; i < program->nparts; i++)
	{
		EsProgramAdded *part = &program->parts[i];

		for (int j = 0; j < part->nitems; j++)
			es_merge_set(merge, part->items[j].number, part->items[j].key, part->items[j].keylen,
						 &part->items[j].value);
		if (part->nitems == 0)
			es_merge_add(merge, JsonbPGetDatum(part->object));
	}
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

	return es_program_state(program, &isnull);
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
	EsProgramAdded *parts;
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
	parts = palloc(sizeof(EsProgramAdded) * list_length(expr->parts));
	foreach(cell, expr->parts)
	{
		EsProgramPart *part = lfirst(cell);

		if (part->sets && !is_object(program))
			break;
		if (!es_program_make_part(program, part, &parts[nparts]))
			break;
		nparts++;
	}
	end_expr(expr);
	if (nparts < list_length(expr->parts) || (program->assigned && program->value.isnull))
		return false;
	for (int i = 0; i < nparts; i++)
	{
		/* what follows may be meant for an object, and find none */
		if (!adds_object(&parts[i]) && nparts > 1)
			return false;
		add_part(program, &parts[i]);
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
add_part(EsProgram *program, EsProgramAdded *part)
{
	Datum		state;
	bool		isnull;

	if (!program->assigned && adds_object(part) && is_object(program))
	{
		if (program->nparts == program->parts_room)
		{
			program->parts_room *= 2;
			program->parts = repalloc(program->parts, sizeof(EsProgramAdded) * program->parts_room);
		}
		program->parts[program->nparts++] = *part;
		program->written = false;
		program->adds++;
		return;
	}
	state = es_program_state(program, &isnull);
	set_value(program, DirectFunctionCall2(jsonb_concat, state, JsonbPGetDatum(es_program_object(part))), false);
}

/*
 * adds_object tells whether what is added to the state is an object.
 */
static bool
adds_object(EsProgramAdded *part)
{
	return part->nitems > 0 || JB_ROOT_IS_OBJECT(part->object);
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
 * es_program_state returns the state as it is now, as jsonb.
 */
Datum
es_program_state(EsProgram *program, bool *isnull)
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
		state = DirectFunctionCall2(jsonb_concat, state,
									JsonbPGetDatum(es_program_object(&program->parts[i])));
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
