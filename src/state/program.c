/*
 * program.c
 *		Reducers as programs: a way to fold that does not call the function.
 *
 * To call a function for each event costs more than most reducers do, and
 * state || data writes the whole state anew each time.  If a reducer is a
 * single SQL expression, as the planner would inline it, or a PL/pgSQL function
 * whose statements are IF, CASE, assignments and RETURN of simple expressions,
 * it is run here instead: its expressions are evaluated one by one, the
 * event's columns are read where they lie, and a state that keys are added to
 * stays open, as that of the built-in merge does.
 *
 * The answers are those of the function.  Where a program does not know how to
 * go on (a statement or expression of another kind, a result that is NULL), it
 * stops, and the function is called for that event.  So a program evaluates
 * nothing but what may be evaluated twice, or not at all: no volatile functions.
 * The expressions of PL/pgSQL are those that it has planned itself: a program is
 * made after the first call, and made anew when calls have planned more.
 * Changes in the catalogs end it.
 */
#include "state/program.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* a program is made anew at most so often */
#define MAX_BUILDS		32

bool		es_setting_inline_reducers = true;

/* counts changes in the catalogs that a program may depend on */
static uint64 catalog_generation = 0;

static void count_change(Datum arg, int cacheid, uint32 hashvalue);
static bool find_language(EsReducer *reducer, Oid *language);
static EsProgram *new_program(MemoryContext parent);
static void free_program(EsProgram *program);
static List *sql_steps(EsProgramBuild *build);
static int	find_sql_param(EsProgramBuild *build, Param *param);
static Node *adapt(Node *node, EsProgramBuild *build);
static Node *adapt_param(EsProgramBuild *build, Param *param);
static Node *adapt_key(EsProgramBuild *build, Node *node, Oid function, List *args);
static bool calls_forbidden(Node *node, void *context);
static bool is_forbidden(Oid function, void *context);
static bool needs_snapshot(Node *node, void *context);
static bool may_read(Oid function, void *context);
static bool find_parts(EsProgramBuild *build, Node *node, List **parts);
static bool find_call(Node *node, Oid *function, List **args);
static bool is_state(Node *node);
static ExprState *prepare(EsProgramBuild *build, Expr *expr);

/*
 * es_program_usable tells whether the reducer has a program that is up to date.
 */
bool
es_program_usable(EsReducer *reducer)
{
	EsProgram  *program = reducer->program;

	if (program == NULL)
		return false;
	program->where = NULL;		/* an error may have left it */
	if (!es_setting_inline_reducers)
		return false;
	if (program->generation == catalog_generation && program->user == GetUserId() &&
		strcmp(program->search_path, namespace_search_path) == 0)
	{
		if (program->stops < 16 || program->stops * 2 < program->runs)
			return true;
		reducer->opaque = true;
	}
	reducer->program = NULL;
	free_program(program);
	return false;
}

/*
 * es_program_learn makes the reducer's program, if there can be one, after a
 * call of the function, which has told all about it.
 */
void
es_program_learn(EsReducer *reducer)
{
	MemoryContext caller = CurrentMemoryContext;
	EsProgramBuild build = {0};
	Oid			language;

	if (reducer->opaque || !es_setting_inline_reducers)
		return;
	if (reducer->program && !reducer->program->unfinished)
		return;
	if (reducer->builds++ >= MAX_BUILDS || !find_language(reducer, &language))
	{
		reducer->opaque = true;
		return;
	}

	build.function = reducer->function;
	build.program = new_program(reducer->context);
	MemoryContextSwitchTo(build.program->context);
	if (language == SQLlanguageId)
		build.program->steps = sql_steps(&build);
	else
		build.program->steps = es_program_plpgsql(&build, &reducer->call);
	build.program->params->numParams = ES_PARAM_OTHER + build.program->nothers;
	MemoryContextSwitchTo(caller);

	if (reducer->program)
	{
		build.program->runs = reducer->program->runs;
		build.program->stops = reducer->program->stops;
		free_program(reducer->program);
		reducer->program = NULL;
	}
	if (build.program->steps == NIL)
	{
		reducer->opaque = true;
		free_program(build.program);
	}
	else
		reducer->program = build.program;
}

/*
 * find_language finds the language of a reducer that may have a program.
 */
static bool
find_language(EsReducer *reducer, Oid *language)
{
	HeapTuple	tuple;
	Form_pg_proc procedure;
	bool		good;

	if (reducer->state_type != JSONBOID || FmgrHookIsNeeded(reducer->function))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(reducer->function));
	if (!HeapTupleIsValid(tuple))
		return false;
	procedure = (Form_pg_proc) GETSTRUCT(tuple);
	*language = procedure->prolang;
	good = !procedure->prosecdef && heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL);
	ReleaseSysCache(tuple);
	return good && (*language == SQLlanguageId || es_program_is_plpgsql(*language, &reducer->call));
}

/*
 * new_program makes a program without steps.
 */
static EsProgram *
new_program(MemoryContext parent)
{
	static bool registered = false;
	MemoryContext context = AllocSetContextCreate(parent, "eventsrc program",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	EsProgram  *program = palloc0(sizeof(EsProgram));

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(OPEROID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, count_change, (Datum) 0);
		registered = true;
	}
	program->context = context;
	program->generation = catalog_generation;
	program->search_path = pstrdup(namespace_search_path);
	program->user = GetUserId();
	program->params = makeParamList(0);
	program->params->paramFetch = es_program_fetch;
	program->params->paramFetchArg = program;
	program->econtext = CreateStandaloneExprContext();
	program->econtext->ecxt_param_list_info = program->params;
	program->parts_room = 4;
	program->parts = palloc(sizeof(Jsonb *) * program->parts_room);
	MemoryContextSwitchTo(caller);
	return program;
}

/*
 * free_program frees a program.
 */
static void
free_program(EsProgram *program)
{
	FreeExprContext(program->econtext, true);
	MemoryContextDelete(program->context);
}

/*
 * count_change counts a change in the catalogs.
 */
static void
count_change(Datum arg, int cacheid, uint32 hashvalue)
{
	catalog_generation++;
}

/*
 * sql_steps makes the steps of an SQL function: one, if the planner inlines it.
 */
static List *
sql_steps(EsProgramBuild *build)
{
	Oid			types[2] = {JSONBOID, es_event_type()};
	List	   *args = NIL;
	Expr	   *expr;
	char	   *name = get_func_name(build->function);

	for (int i = 0; i < 2; i++)
	{
		Param	   *param = makeNode(Param);

		param->paramkind = PARAM_EXTERN;
		param->paramid = i + 1;
		param->paramtype = types[i];
		param->paramtypmod = -1;
		param->location = -1;
		args = lappend(args, param);
	}
	expr = (Expr *) makeFuncExpr(build->function, JSONBOID, args, InvalidOid,
								 DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	expr = expression_planner(expr);
	if (IsA(expr, FuncExpr) && ((FuncExpr *) expr)->funcid == build->function)
		return NIL;
	if (contain_volatile_functions((Node *) expr))
		return NIL;
	build->readonly = func_volatile(build->function) != PROVOLATILE_VOLATILE;
	build->find_param = find_sql_param;
	return es_program_return(build, expr, psprintf("SQL function \"%s\" statement 1", name));
}

/*
 * find_sql_param tells what a Param of an SQL function stands for.
 */
static int
find_sql_param(EsProgramBuild *build, Param *param)
{
	return param->paramid == 1 ? ES_PARAM_STATE : ES_PARAM_EVENT;
}

/*
 * es_program_step makes a step.
 */
EsProgramStep *
es_program_step(EsStepKind kind, const char *where)
{
	EsProgramStep *step = palloc0(sizeof(EsProgramStep));

	step->kind = kind;
	step->where = where;
	return step;
}

/*
 * es_program_return makes the steps that return an expression.  CASE becomes a
 * branch, so that each of its results can leave the state open.
 */
List *
es_program_return(EsProgramBuild *build, Expr *expr, const char *where)
{
	CaseExpr   *choice = (CaseExpr *) expr;
	EsProgramStep *step;
	ListCell   *cell;

	/* (one expression has one snapshot) */
	if (!IsA(expr, CaseExpr) || choice->defresult == NULL ||
		(!build->readonly && needs_snapshot((Node *) expr, NULL)))
	{
		step = es_program_step(ES_STEP_RETURN, where);
		step->expr = es_program_expr(build, expr, true);
		return list_make1(step->expr ? step : es_program_step(ES_STEP_STOP, where));
	}

	step = es_program_step(ES_STEP_BRANCH, where);
	if (choice->arg)
	{
		step->expr = es_program_expr(build, choice->arg, false);
		if (step->expr == NULL)
			return list_make1(es_program_step(ES_STEP_STOP, where));
	}
	foreach(cell, choice->args)
	{
		CaseWhen   *when = lfirst_node(CaseWhen, cell);
		EsProgramArm *arm = palloc0(sizeof(EsProgramArm));

		arm->condition = es_program_expr(build, when->expr, false);
		if (arm->condition == NULL)
			return list_make1(es_program_step(ES_STEP_STOP, where));
		arm->steps = es_program_return(build, when->result, where);
		step->arms = lappend(step->arms, arm);
	}
	step->otherwise = es_program_return(build, choice->defresult, where);
	return list_make1(step);
}

/*
 * es_program_expr prepares an expression that was planned; NULL if a program
 * cannot evaluate it.  open: it becomes the state, which may stay open.
 */
EsProgramExpr *
es_program_expr(EsProgramBuild *build, Expr *expr, bool open)
{
	EsProgramExpr *result = palloc0(sizeof(EsProgramExpr));
	Node	   *node;

	build->failed = false;
	node = adapt((Node *) expr, build);
	if (build->failed || contain_volatile_functions(node) || calls_forbidden(node, NULL))
		return NULL;
	result->snapshot = !build->readonly && needs_snapshot(node, NULL);
	if (!open || !find_parts(build, node, &result->parts))
	{
		result->expr = prepare(build, (Expr *) node);
		result->is_varlena = get_typlen(exprType(node)) == -1;
	}
	return result;
}

/*
 * es_program_add_param adds a Param that stands for a variable of a type, or a
 * key of the state.
 */
int
es_program_add_param(EsProgram *program, Oid type)
{
	if (program->nothers == program->room)
	{
		program->room = program->room * 2 + 8;
		program->others = program->others ?
			repalloc(program->others, sizeof(EsProgramParam) * program->room) :
			palloc(sizeof(EsProgramParam) * program->room);
	}
	memset(&program->others[program->nothers], 0, sizeof(EsProgramParam));
	program->others[program->nothers].type = type;
	return ES_PARAM_OTHER + program->nothers++;
}

/*
 * es_program_column returns the Param that stands for a column of the event; 0
 * if there is no such column.
 */
int
es_program_column(const char *name)
{
	TupleDesc	desc = es_event_tupdesc();

	for (int i = 0; i < ES_NATTS; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return ES_PARAM_COLUMN + i;
	}
	return 0;
}

/*
 * adapt rewrites an expression for the program's Params.
 */
static Node *
adapt(Node *node, EsProgramBuild *build)
{
	Oid			function;
	List	   *args;

	if (node == NULL || build->failed)
		return NULL;
	if (IsA(node, Param))
		return adapt_param(build, (Param *) node);
	if (IsA(node, FieldSelect))
	{
		FieldSelect *select = (FieldSelect *) node;
		Param	   *row = (Param *) select->arg;

		if (IsA(row, Param) && row->paramkind == PARAM_EXTERN &&
			select->fieldnum >= 1 && select->fieldnum <= ES_NATTS &&
			build->find_param(build, row) == ES_PARAM_EVENT)
		{
			Param	   *column = makeNode(Param);

			column->paramkind = PARAM_EXTERN;
			column->paramid = ES_PARAM_COLUMN + select->fieldnum - 1;
			column->paramtype = select->resulttype;
			column->paramtypmod = select->resulttypmod;
			column->paramcollid = select->resultcollid;
			column->location = -1;
			if (TupleDescAttr(es_event_tupdesc(), select->fieldnum - 1)->atttypid != select->resulttype)
				build->failed = true;
			return (Node *) column;
		}
	}
	if (find_call(node, &function, &args) &&
		(function == F_JSONB_OBJECT_FIELD || function == F_JSONB_OBJECT_FIELD_TEXT))
	{
		Node	   *key = adapt_key(build, node, function, args);

		if (key)
			return key;
	}
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) || IsA(node, Var))
	{
		build->failed = true;
		return NULL;
	}
	return expression_tree_mutator(node, adapt, build);
}

/*
 * adapt_param rewrites a Param.
 */
static Node *
adapt_param(EsProgramBuild *build, Param *param)
{
	int			id = param->paramkind == PARAM_EXTERN ? build->find_param(build, param) : 0;
	Param	   *result = copyObject(param);
	Oid			type = InvalidOid;

	if (id == ES_PARAM_STATE)
		type = JSONBOID;
	else if (id == ES_PARAM_EVENT)
		type = es_event_type();
	else if (id >= ES_PARAM_OTHER)
		type = build->program->others[id - ES_PARAM_OTHER].type;
	else if (id >= ES_PARAM_COLUMN)
		type = TupleDescAttr(es_event_tupdesc(), id - ES_PARAM_COLUMN)->atttypid;
	if (type != param->paramtype)
		build->failed = true;
	result->paramid = id;
	return (Node *) result;
}

/*
 * adapt_key makes a Param of a look at a key of the state, which needs not be
 * written for that.
 */
static Node *
adapt_key(EsProgramBuild *build, Node *node, Oid function, List *args)
{
	Param	   *state = linitial(args);
	Const	   *key = lsecond(args);
	EsProgramParam *other;
	Param	   *result;

	if (!IsA(state, Param) || state->paramkind != PARAM_EXTERN ||
		build->find_param(build, state) != ES_PARAM_STATE ||
		!IsA(key, Const) || key->constisnull)
		return NULL;
	result = makeNode(Param);
	result->paramkind = PARAM_EXTERN;
	result->paramtype = exprType(node);
	result->paramtypmod = -1;
	result->paramcollid = exprCollation(node);
	result->location = -1;
	result->paramid = es_program_add_param(build->program, result->paramtype);
	other = &build->program->others[result->paramid - ES_PARAM_OTHER];
	other->key = TextDatumGetCString(key->constvalue);
	other->keylen = strlen(other->key);
	other->as_text = function == F_JSONB_OBJECT_FIELD_TEXT;
	return (Node *) result;
}

/*
 * calls_forbidden tells whether an expression calls functions that the current
 * user may not: the call itself is what has to fail, if it comes to that.
 */
static bool
calls_forbidden(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, is_forbidden, context) ||
		expression_tree_walker(node, calls_forbidden, context);
}

/*
 * is_forbidden tells whether the current user may not execute a function.
 */
static bool
is_forbidden(Oid function, void *context)
{
	return es_proc_aclcheck(function, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK;
}

/*
 * needs_snapshot tells whether an expression's value may depend on the snapshot:
 * it calls stable functions, which may read tables.
 */
static bool
needs_snapshot(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, may_read, context) ||
		expression_tree_walker(node, needs_snapshot, context);
}

/*
 * may_read tells whether a function may read tables.  These are stable because
 * of settings.
 */
static bool
may_read(Oid function, void *context)
{
	static const Oid known[] = {
		F_JSONB_BUILD_OBJECT_, F_JSONB_BUILD_OBJECT_ANY, F_JSONB_BUILD_ARRAY_, F_JSONB_BUILD_ARRAY_ANY,
		F_TO_JSONB, F_CONCAT, F_CONCAT_WS, F_FORMAT_TEXT, F_FORMAT_TEXT_ANY, F_NOW,
		F_DATE_IN, F_DATE_OUT, F_TIMESTAMP_IN, F_TIMESTAMP_OUT, F_TIMESTAMPTZ_IN, F_TIMESTAMPTZ_OUT,
		F_INTERVAL_IN, F_TIMESTAMPTZ_TIMESTAMP, F_TIMESTAMP_TIMESTAMPTZ, F_DATE_TIMESTAMPTZ, F_TIMESTAMPTZ_DATE
	};

	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return false;
	for (int i = 0; i < lengthof(known); i++)
	{
		if (known[i] == function)
			return false;
	}
	return true;
}

/*
 * find_parts finds out whether an expression is the state, with or without
 * something added to it.
 */
static bool
find_parts(EsProgramBuild *build, Node *node, List **parts)
{
	EsProgramPart *part;
	Oid			function;
	List	   *args;
	char	   *key = NULL;

	if (is_state(node))
		return true;
	if (!find_call(node, &function, &args))
		return false;
	if (function == F_JSONB_SET)
	{
		Const	   *path = lsecond(args);
		Const	   *create = lfourth(args);
		Datum	   *keys;
		bool	   *nulls;
		int			nkeys;

		if (!IsA(path, Const) || path->constisnull ||
			!IsA(create, Const) || create->constisnull || !DatumGetBool(create->constvalue))
			return false;
		deconstruct_array(DatumGetArrayTypeP(path->constvalue), TEXTOID, -1, false, TYPALIGN_INT,
						  &keys, &nulls, &nkeys);
		if (nkeys != 1 || nulls[0])
			return false;
		key = TextDatumGetCString(keys[0]);
	}
	else if (function != F_JSONB_CONCAT)
		return false;
	if (!find_parts(build, linitial(args), parts))
		return false;

	part = palloc0(sizeof(EsProgramPart));
	part->expr = prepare(build, key ? lthird(args) : lsecond(args));
	part->key = key;
	part->keylen = key ? strlen(key) : 0;
	*parts = lappend(*parts, part);
	return true;
}

/*
 * find_call tells which function an expression calls, with which arguments.
 */
static bool
find_call(Node *node, Oid *function, List **args)
{
	if (IsA(node, OpExpr))
	{
		*function = ((OpExpr *) node)->opfuncid;
		*args = ((OpExpr *) node)->args;
	}
	else if (IsA(node, FuncExpr))
	{
		*function = ((FuncExpr *) node)->funcid;
		*args = ((FuncExpr *) node)->args;
	}
	else
		return false;
	return true;
}

/*
 * is_state tells whether an adapted expression is the state.
 */
static bool
is_state(Node *node)
{
	return IsA(node, Param) && ((Param *) node)->paramid == ES_PARAM_STATE;
}

/*
 * prepare makes an expression ready to be evaluated.
 */
static ExprState *
prepare(EsProgramBuild *build, Expr *expr)
{
	return ExecInitExprWithParams(expr, build->program->params);
}
