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
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
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
