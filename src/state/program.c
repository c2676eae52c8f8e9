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
 * made after the first call, and made anew when calls have planned more.  Later
 * queries use what was made (program_kept.c).  Changes in the catalogs end it.
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
static bool is_current(EsProgram *program);
static void use_kept(EsReducer *reducer);
static bool find_language(EsReducer *reducer, Oid *language);
static EsProgramCode *make_code(EsReducer *reducer, Oid language);
static EsProgramCode *new_code(EsReducer *reducer);
static EsProgram *new_program(MemoryContext parent, EsProgramCode *code);
static void release_code(void *arg);
static void free_program(EsProgram *program);
static List *sql_steps(EsProgramBuild *build);
static int	find_sql_param(EsProgramBuild *build, Param *param);

/*
 * es_program_generation returns a number that changes with the catalogs.
 */
uint64
es_program_generation(void)
{
	return catalog_generation;
}

/*
 * es_program_usable tells whether the reducer has a program that is up to date.
 */
bool
es_program_usable(EsReducer *reducer)
{
	EsProgram  *program = reducer->program;

	if (program)
		program->where = NULL;	/* an error may have left it */
	if (!es_setting_inline_reducers)
		return false;
	if (program && is_current(program))
	{
		if (program->stops < 16 || program->stops * 2 < program->runs)
			return true;
		reducer->opaque = true;
	}
	if (program)
	{
		reducer->program = NULL;
		free_program(program);
	}
	if (!reducer->opaque)
		use_kept(reducer);
	return reducer->program != NULL;
}

/*
 * is_current tells whether a program was made of what is there now.
 */
static bool
is_current(EsProgram *program)
{
	EsProgramCode *code = program->code;

	return code->generation == catalog_generation && code->user == GetUserId() &&
		strcmp(code->search_path, namespace_search_path) == 0;
}

/*
 * use_kept gives the reducer the program that an earlier query has made, if
 * there is one.
 */
static void
use_kept(EsReducer *reducer)
{
	EsProgramCode *code = es_program_kept(reducer);

	if (code && code->steps == NIL)
		reducer->opaque = true;
	else if (code)
		reducer->program = new_program(reducer->context, code);
}

/*
 * es_program_learn makes the reducer's program, if there can be one, after a
 * call of the function, which has told all about it.
 */
void
es_program_learn(EsReducer *reducer)
{
	EsProgram  *before = reducer->program;
	EsProgramCode *code;
	Oid			language;

	if (reducer->opaque || !es_setting_inline_reducers)
		return;
	if (before && !before->code->unfinished)
		return;
	if (reducer->builds++ >= MAX_BUILDS || !find_language(reducer, &language))
	{
		reducer->opaque = true;
		return;
	}

	code = make_code(reducer, language);
	es_program_keep(code);
	reducer->program = NULL;
	if (code->steps == NIL)
		reducer->opaque = true;
	else
	{
		reducer->program = new_program(reducer->context, code);
		if (before)
		{
			reducer->program->runs = before->runs;
			reducer->program->stops = before->stops;
		}
	}
	if (before)
		free_program(before);
	es_program_release(code);
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
	if (good && *language != SQLlanguageId && es_program_plpgsql_watched())
		good = false;
	return good && (*language == SQLlanguageId || es_program_is_plpgsql(*language, &reducer->call));
}

/*
 * make_code makes the code of a reducer; without steps if there can be none.
 */
static EsProgramCode *
make_code(EsReducer *reducer, Oid language)
{
	EsProgramBuild build = {0};
	EsProgramCode *code = new_code(reducer);
	MemoryContext caller = MemoryContextSwitchTo(code->context);

	build.code = code;
	if (language == SQLlanguageId)
		code->steps = sql_steps(&build);
	else
		code->steps = es_program_plpgsql(&build, &reducer->call);
	MemoryContextSwitchTo(caller);

	/* from now on it is for who has it in use to free it */
	MemoryContextSetParent(code->context, TopMemoryContext);
	code->users = 1;
	return code;
}

/*
 * new_code makes code without steps.
 */
static EsProgramCode *
new_code(EsReducer *reducer)
{
	static bool registered = false;
	MemoryContext context = AllocSetContextCreate(reducer->context, "eventsrc program code",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	EsProgramCode *code = palloc0(sizeof(EsProgramCode));

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(OPEROID, count_change, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, count_change, (Datum) 0);
		registered = true;
	}
	code->context = context;
	code->function = reducer->function;
	code->address = reducer->call.fn_addr;
	code->generation = catalog_generation;
	code->search_path = pstrdup(namespace_search_path);
	code->path = es_search_path(context);
	code->user = GetUserId();
	MemoryContextSwitchTo(caller);
	return code;
}

/*
 * new_program makes a program that runs code.
 */
static EsProgram *
new_program(MemoryContext parent, EsProgramCode *code)
{
	MemoryContext context = AllocSetContextCreate(parent, "eventsrc program",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	EsProgram  *program = palloc0(sizeof(EsProgram));

	program->context = context;
	program->code = code;
	program->params = makeParamList(0);
	program->params->paramFetch = es_program_fetch;
	program->params->paramFetchArg = program;
	program->params->numParams = ES_PARAM_OTHER + code->nothers;
	program->econtext = CreateStandaloneExprContext();
	program->econtext->ecxt_param_list_info = program->params;
	program->evals = palloc0(sizeof(ExprState *) * code->nevals);
	program->variables = palloc0(sizeof(NullableDatum) * code->nothers);
	program->parts_room = 4;
	program->parts = palloc(sizeof(EsProgramAdded) * program->parts_room);

	/* it goes with its context at the latest */
	program->release.func = release_code;
	program->release.arg = code;
	code->users++;
	MemoryContextRegisterResetCallback(context, &program->release);
	MemoryContextSwitchTo(caller);
	return program;
}

/*
 * release_code is called when the memory of a program that runs code goes.
 */
static void
release_code(void *arg)
{
	es_program_release(arg);
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
	char	   *name = get_func_name(build->code->function);

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
	expr = (Expr *) makeFuncExpr(build->code->function, JSONBOID, args, InvalidOid,
								 DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	expr = expression_planner(expr);
	if (IsA(expr, FuncExpr) && ((FuncExpr *) expr)->funcid == build->code->function)
		return NIL;
	if (contain_volatile_functions((Node *) expr))
		return NIL;
	build->readonly = func_volatile(build->code->function) != PROVOLATILE_VOLATILE;
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
es_program_add_param(EsProgramCode *code, Oid type)
{
	if (code->nothers == code->room)
	{
		code->room = code->room * 2 + 8;
		code->others = code->others ?
			repalloc(code->others, sizeof(EsProgramParam) * code->room) :
			palloc(sizeof(EsProgramParam) * code->room);
	}
	memset(&code->others[code->nothers], 0, sizeof(EsProgramParam));
	code->others[code->nothers].type = type;
	return ES_PARAM_OTHER + code->nothers++;
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
