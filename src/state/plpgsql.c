/*
 * plpgsql.c
 *		Programs (program.c) of PL/pgSQL functions.
 *
 * PL/pgSQL keeps a compiled function where the call's FmgrInfo points to, and in
 * it, of each expression that was evaluated once, the planned one, if it is a
 * simple expression.  Both are only looked at, and copied: no pointer into them
 * is kept.  An expression that was not planned yet stops the program, so that
 * the function is called and plans it.
 */
#include "state/program.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

#include "plpgsql.h"

#define UNKNOWN		0			/* no Param of the program */

typedef struct Plpgsql
{
	PLpgSQL_function *function;
	int		   *ids;			/* Params of the program for its datums */
} Plpgsql;

static bool names_handler(Oid function);
static List *add_statements(EsProgramBuild *build, List *steps, List *statements, bool *ends);
static List *add_block(EsProgramBuild *build, List *steps, PLpgSQL_stmt_block *block, bool *ends);
static bool is_plain_record(PLpgSQL_datum *datum);
static EsProgramStep *declare(EsProgramBuild *build, PLpgSQL_var *var);
static EsProgramStep *assign(EsProgramBuild *build, PLpgSQL_stmt_assign *statement);
static EsProgramStep *branch_if(EsProgramBuild *build, PLpgSQL_stmt_if *statement);
static EsProgramStep *branch_case(EsProgramBuild *build, PLpgSQL_stmt_case *statement);
static bool add_arm(EsProgramBuild *build, EsProgramStep *step, PLpgSQL_expr *condition, List *statements);
static List *add_return(EsProgramBuild *build, PLpgSQL_stmt_return *statement);
static EsProgramExpr *read_expr(EsProgramBuild *build, PLpgSQL_expr *expr, Oid type, int32 typmod,
								bool open);
static Expr *planned(EsProgramBuild *build, PLpgSQL_expr *expr);
static int	find_param(EsProgramBuild *build, Param *param);
static const char *place(EsProgramBuild *build, int line, const char *what);

/*
 * es_program_is_plpgsql tells whether a language is PL/pgSQL, and a function is
 * called by its handler.
 */
bool
es_program_is_plpgsql(Oid language, FmgrInfo *call)
{
	HeapTuple	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	Oid			handler = InvalidOid;
	FmgrInfo	handler_call;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (strcmp(NameStr(((Form_pg_language) GETSTRUCT(tuple))->lanname), "plpgsql") == 0)
		handler = ((Form_pg_language) GETSTRUCT(tuple))->lanplcallfoid;
	ReleaseSysCache(tuple);
	if (!OidIsValid(handler) || !names_handler(handler))
		return false;
	fmgr_info(handler, &handler_call);
	return call->fn_addr == handler_call.fn_addr && call->fn_extra != NULL;
}

/*
 * names_handler tells whether a function is the call handler that comes with
 * PostgreSQL.
 */
static bool
names_handler(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Datum		name;
	Datum		library;
	bool		no_name;
	bool		no_library;
	bool		result = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	name = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &no_name);
	library = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &no_library);
	if (!no_name && !no_library)
		result = strcmp(TextDatumGetCString(name), "plpgsql_call_handler") == 0 &&
			strcmp(TextDatumGetCString(library), "$libdir/plpgsql") == 0;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * es_program_plpgsql_watched tells whether a debugger or profiler is there, which
 * wants to see each statement.
 */
bool
es_program_plpgsql_watched(void)
{
	PLpgSQL_plugin **plugin = (PLpgSQL_plugin **) find_rendezvous_variable("PLpgSQL_plugin");

	return *plugin != NULL;
}

/*
 * es_program_plpgsql makes the steps of a function that was called just now; NIL
 * if there are none that would help.
 */
List *
es_program_plpgsql(EsProgramBuild *build, FmgrInfo *call)
{
	Plpgsql		plpgsql = {0};
	PLpgSQL_function *function = call->fn_extra;
	List	   *steps;
	bool		ends = false;

	if (function->fn_oid != build->code->function || function->fn_nargs != 2 ||
		function->fn_retset || function->fn_rettype != JSONBOID || function->out_param_varno >= 0)
		return NIL;

	plpgsql.function = function;
	plpgsql.ids = palloc0(sizeof(int) * function->ndatums);
	plpgsql.ids[function->fn_argvarnos[0]] = ES_PARAM_STATE;
	plpgsql.ids[function->fn_argvarnos[1]] = ES_PARAM_EVENT;
	build->language = &plpgsql;
	build->readonly = function->fn_readonly;
	build->find_param = find_param;
	steps = add_block(build, NIL, function->action, &ends);
	if (!ends)
		steps = lappend(steps, es_program_step(ES_STEP_STOP, NULL));
	if (((EsProgramStep *) linitial(steps))->kind == ES_STEP_STOP && !build->code->unfinished)
		return NIL;
	return steps;
}

/*
 * add_statements adds the steps of statements.  ends: they never go on to what
 * follows.
 */
static List *
add_statements(EsProgramBuild *build, List *steps, List *statements, bool *ends)
{
	ListCell   *cell;

	check_stack_depth();
	*ends = false;
	foreach(cell, statements)
	{
		PLpgSQL_stmt *statement = lfirst(cell);
		EsProgramStep *step = NULL;

		switch (statement->cmd_type)
		{
			case PLPGSQL_STMT_BLOCK:
				steps = add_block(build, steps, (PLpgSQL_stmt_block *) statement, ends);
				if (*ends)
					return steps;
				continue;
			case PLPGSQL_STMT_RETURN:
				*ends = true;
				return list_concat(steps, add_return(build, (PLpgSQL_stmt_return *) statement));
			case PLPGSQL_STMT_ASSIGN:
				step = assign(build, (PLpgSQL_stmt_assign *) statement);
				break;
			case PLPGSQL_STMT_IF:
				step = branch_if(build, (PLpgSQL_stmt_if *) statement);
				break;
			case PLPGSQL_STMT_CASE:
				step = branch_case(build, (PLpgSQL_stmt_case *) statement);
				break;
			default:
				break;
		}
		if (step == NULL)
			step = es_program_step(ES_STEP_STOP, NULL);
		steps = lappend(steps, step);
		if (step->kind == ES_STEP_STOP)
		{
			*ends = true;
			return steps;
		}
	}
	return steps;
}

/*
 * add_block adds the steps of a block.
 */
static List *
add_block(EsProgramBuild *build, List *steps, PLpgSQL_stmt_block *block, bool *ends)
{
	Plpgsql    *plpgsql = build->language;

	*ends = true;
	if (block->exceptions)
		return lappend(steps, es_program_step(ES_STEP_STOP, NULL));
	for (int i = 0; i < block->n_initvars; i++)
	{
		PLpgSQL_datum *datum = plpgsql->function->datums[block->initvarnos[i]];
		EsProgramStep *step;

		/* a record begins as NULL; the program stops where it is used */
		if (is_plain_record(datum))
			continue;
		step = datum->dtype == PLPGSQL_DTYPE_VAR ? declare(build, (PLpgSQL_var *) datum) : NULL;
		if (step == NULL)
			return lappend(steps, es_program_step(ES_STEP_STOP, NULL));
		steps = lappend(steps, step);
	}
	return add_statements(build, steps, block->body, ends);
}

/*
 * is_plain_record tells whether a datum is a record that begins as NULL.
 */
static bool
is_plain_record(PLpgSQL_datum *datum)
{
	PLpgSQL_rec *rec = (PLpgSQL_rec *) datum;

	return datum->dtype == PLPGSQL_DTYPE_REC && rec->default_val == NULL &&
		(rec->datatype == NULL || rec->datatype->typtype != TYPTYPE_DOMAIN);
}

/*
 * declare makes the step that gives a variable its first value.
 */
static EsProgramStep *
declare(EsProgramBuild *build, PLpgSQL_var *var)
{
	Plpgsql    *plpgsql = build->language;
	EsProgramStep *step;

	if (var->datatype->ttype != PLPGSQL_TTYPE_SCALAR || var->datatype->typtype == TYPTYPE_DOMAIN ||
		var->notnull)
		return NULL;
	step = es_program_step(ES_STEP_ASSIGN,
						   place(build, var->lineno, "during statement block local variable initialization"));
	if (var->default_val)
	{
		step->expr = read_expr(build, var->default_val, var->datatype->typoid,
							   var->datatype->atttypmod, false);
		if (step->expr == NULL)
			return NULL;
	}
	step->target = plpgsql->ids[var->dno] = es_program_add_param(build->code, var->datatype->typoid);
	return step;
}

/*
 * assign makes the step of an assignment.
 */
static EsProgramStep *
assign(EsProgramBuild *build, PLpgSQL_stmt_assign *statement)
{
	Plpgsql    *plpgsql = build->language;
	PLpgSQL_var *var = (PLpgSQL_var *) plpgsql->function->datums[statement->varno];
	EsProgramStep *step;
	int			id = var->dtype == PLPGSQL_DTYPE_VAR ? plpgsql->ids[statement->varno] : UNKNOWN;

	if ((id != ES_PARAM_STATE && id < ES_PARAM_OTHER) || var->notnull || var->isconst)
		return NULL;
	step = es_program_step(ES_STEP_ASSIGN, place(build, statement->lineno, "at assignment"));
	step->target = id;
	step->expr = read_expr(build, statement->expr, var->datatype->typoid, var->datatype->atttypmod,
						   id == ES_PARAM_STATE);
	return step->expr ? step : NULL;
}

/*
 * branch_if makes the step of IF.
 */
static EsProgramStep *
branch_if(EsProgramBuild *build, PLpgSQL_stmt_if *statement)
{
	EsProgramStep *step = es_program_step(ES_STEP_BRANCH, place(build, statement->lineno, "at IF"));
	ListCell   *cell;
	bool		ends;

	if (!add_arm(build, step, statement->cond, statement->then_body))
		return NULL;
	foreach(cell, statement->elsif_list)
	{
		PLpgSQL_if_elsif *arm = lfirst(cell);

		if (!add_arm(build, step, arm->cond, arm->stmts))
		{
			/* up to here it is known */
			step->otherwise = list_make1(es_program_step(ES_STEP_STOP, NULL));
			return step;
		}
	}
	step->otherwise = add_statements(build, NIL, statement->else_body, &ends);
	return step;
}

/*
 * branch_case makes the step of CASE.
 */
static EsProgramStep *
branch_case(EsProgramBuild *build, PLpgSQL_stmt_case *statement)
{
	Plpgsql    *plpgsql = build->language;
	EsProgramStep *step = es_program_step(ES_STEP_BRANCH, place(build, statement->lineno, "at CASE"));
	ListCell   *cell;
	bool		ends;

	if (statement->t_expr)
	{
		Expr	   *test = planned(build, statement->t_expr);

		step->expr = test ? es_program_expr(build, test, false) : NULL;
		if (step->expr == NULL)
			return NULL;
		/* the variable gets the type of what it is given */
		step->target = es_program_add_param(build->code, statement->t_expr->expr_simple_type);
		plpgsql->ids[statement->t_varno] = step->target;
	}
	foreach(cell, statement->case_when_list)
	{
		PLpgSQL_case_when *arm = lfirst(cell);

		if (!add_arm(build, step, arm->expr, arm->stmts))
		{
			step->otherwise = list_make1(es_program_step(ES_STEP_STOP, NULL));
			return step->arms == NIL ? NULL : step;
		}
	}
	if (statement->have_else)
		step->otherwise = add_statements(build, NIL, statement->else_stmts, &ends);
	else
		step->otherwise = list_make1(es_program_step(ES_STEP_STOP, NULL));
	return step;
}

/*
 * add_arm adds an arm to a branch; false if its condition is not known.
 */
static bool
add_arm(EsProgramBuild *build, EsProgramStep *step, PLpgSQL_expr *condition, List *statements)
{
	EsProgramArm *arm = palloc0(sizeof(EsProgramArm));
	bool		ends;

	arm->condition = read_expr(build, condition, BOOLOID, -1, false);
	if (arm->condition == NULL)
		return false;
	arm->steps = add_statements(build, NIL, statements, &ends);
	step->arms = lappend(step->arms, arm);
	return true;
}

/*
 * add_return makes the steps of RETURN.
 */
static List *
add_return(EsProgramBuild *build, PLpgSQL_stmt_return *statement)
{
	const char *where = place(build, statement->lineno, "at RETURN");
	int			id = statement->retvarno >= 0 ? ((Plpgsql *) build->language)->ids[statement->retvarno] : UNKNOWN;
	EsProgramStep *step;
	Expr	   *expr;

	if (statement->retvarno >= 0)
	{
		/* an expression without parts is the state */
		if (id == ES_PARAM_STATE)
		{
			step = es_program_step(ES_STEP_RETURN, where);
			step->expr = palloc0(sizeof(EsProgramExpr));
			return list_make1(step);
		}
		if (id >= ES_PARAM_OTHER)
		{
			Param	   *param = makeNode(Param);

			param->paramkind = PARAM_EXTERN;
			param->paramid = statement->retvarno + 1;
			param->paramtype = JSONBOID;
			param->paramtypmod = -1;
			param->location = -1;
			return es_program_return(build, (Expr *) param, where);
		}
		return list_make1(es_program_step(ES_STEP_STOP, where));
	}
	expr = statement->expr ? planned(build, statement->expr) : NULL;
	if (expr == NULL || statement->expr->expr_simple_type != JSONBOID)
		return list_make1(es_program_step(ES_STEP_STOP, where));
	return es_program_return(build, expr, where);
}

/*
 * read_expr prepares an expression, converted to a type as by an assignment;
 * NULL if a program cannot evaluate it, or not yet.
 */
static EsProgramExpr *
read_expr(EsProgramBuild *build, PLpgSQL_expr *expr, Oid type, int32 typmod, bool open)
{
	Expr	   *simple = planned(build, expr);
	Oid			from = expr->expr_simple_type;

	if (simple == NULL)
		return NULL;
	if (from != type || (typmod != -1 && expr->expr_simple_typmod != typmod))
	{
		if (from == UNKNOWNOID || from == RECORDOID)
			return NULL;
		simple = (Expr *) coerce_to_target_type(NULL, (Node *) simple, from, type, typmod,
												COERCION_PLPGSQL, COERCE_IMPLICIT_CAST, -1);
		if (simple == NULL)
			return NULL;
		simple = expression_planner(simple);
	}
	return es_program_expr(build, simple, open);
}

/*
 * planned returns an expression as PL/pgSQL planned it, if it did and it is a
 * simple one.
 */
static Expr *
planned(EsProgramBuild *build, PLpgSQL_expr *expr)
{
	if (expr->plan == NULL)
	{
		build->code->unfinished = true;
		return NULL;
	}
	if (expr->expr_simple_expr == NULL)
		return NULL;
	if (!CachedPlanIsSimplyValid(expr->expr_simple_plansource, expr->expr_simple_plan, NULL))
	{
		build->code->unfinished = true;
		return NULL;
	}
	return expr->expr_simple_expr;
}

/*
 * find_param tells what a Param of the function stands for; 0 if a program does
 * not know it.
 */
static int
find_param(EsProgramBuild *build, Param *param)
{
	Plpgsql    *plpgsql = build->language;
	int			dno = param->paramid - 1;
	PLpgSQL_datum *datum;

	if (dno < 0 || dno >= plpgsql->function->ndatums)
		return UNKNOWN;
	datum = plpgsql->function->datums[dno];
	if (datum->dtype == PLPGSQL_DTYPE_RECFIELD &&
		plpgsql->ids[((PLpgSQL_recfield *) datum)->recparentno] == ES_PARAM_EVENT)
		return es_program_column(((PLpgSQL_recfield *) datum)->fieldname);
	return plpgsql->ids[dno];
}

/*
 * place tells where in the function something is, as PL/pgSQL does in an
 * error's context.
 */
static const char *
place(EsProgramBuild *build, int line, const char *what)
{
	Plpgsql    *plpgsql = build->language;

	return psprintf("PL/pgSQL function %s line %d %s", plpgsql->function->fn_signature, line, what);
}
