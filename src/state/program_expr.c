/*
 * program_expr.c
 *		Expressions of programs (program.c): planned ones, rewritten for what a
 *		program has at hand, the columns of the event and an open state.
 */
#include "state/program.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

static Node *adapt(Node *node, EsProgramBuild *build);
static Node *adapt_param(EsProgramBuild *build, Param *param);
static Node *adapt_key(EsProgramBuild *build, Node *node, Oid function, List *args);
static bool calls_forbidden(Node *node, void *build);
static bool is_forbidden(Oid function, void *build);
static bool needs_snapshot(Node *node, void *context);
static bool may_read(Oid function, void *context);
static bool find_parts(EsProgramBuild *build, Node *node, List **parts);
static List *find_fields(EsProgramBuild *build, Node *node);
static EsProgramField *new_field(EsProgramBuild *build, char *key, Node *value);
static char *constant_text(Node *node);
static bool find_call(Node *node, Oid *function, List **args);
static bool is_state(Node *node);
static EsProgramEval new_eval(EsProgramBuild *build, Node *expr);

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
	node = adapt(copyObject((Node *) expr), build);
	if (build->failed || contain_volatile_functions(node) || calls_forbidden(node, build))
		return NULL;
	result->snapshot = !build->readonly && needs_snapshot(node, NULL);
	if (!open || !find_parts(build, node, &result->parts))
	{
		result->eval = new_eval(build, node);
		result->is_varlena = get_typlen(exprType(node)) == -1;
	}
	return result;
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
		type = build->code->others[id - ES_PARAM_OTHER].type;
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
	result->paramid = es_program_add_param(build->code, result->paramtype);
	other = &build->code->others[result->paramid - ES_PARAM_OTHER];
	other->key = TextDatumGetCString(key->constvalue);
	other->keylen = strlen(other->key);
	other->as_text = function == F_JSONB_OBJECT_FIELD_TEXT;
	return (Node *) result;
}

/*
 * calls_forbidden tells whether an expression calls functions that the current
 * user may not: the call itself is what has to fail, if it comes to that.  The
 * code notes what it calls.
 */
static bool
calls_forbidden(Node *node, void *build)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, is_forbidden, build) ||
		expression_tree_walker(node, calls_forbidden, build);
}

/*
 * is_forbidden tells whether the current user may not execute a function.
 */
static bool
is_forbidden(Oid function, void *build)
{
	EsProgramCode *code = ((EsProgramBuild *) build)->code;

	code->functions = list_append_unique_oid(code->functions, function);
	return !es_program_may_execute(function);
}

/*
 * es_program_may_execute tells whether the current user may execute a function.
 */
bool
es_program_may_execute(Oid function)
{
	return es_proc_aclcheck(function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
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
	part->sets = key != NULL;
	if (part->sets)
		part->fields = list_make1(new_field(build, key, lthird(args)));
	else
		part->fields = find_fields(build, lsecond(args));
	if (part->fields == NIL)
		part->eval = new_eval(build, lsecond(args));
	*parts = lappend(*parts, part);
	return true;
}

/*
 * find_fields finds the keys and values of a call of jsonb_build_object() whose
 * keys are known and whose values are of types that can be put into an object
 * without their output functions; NIL for any other expression.
 */
static List *
find_fields(EsProgramBuild *build, Node *node)
{
	FuncExpr   *call = (FuncExpr *) node;
	List	   *fields = NIL;

	if (!IsA(node, FuncExpr) || call->funcid != F_JSONB_BUILD_OBJECT_ANY || call->funcvariadic ||
		list_length(call->args) % 2 != 0)
		return NIL;
	for (int i = 0; i < list_length(call->args); i += 2)
	{
		char	   *key = constant_text(list_nth(call->args, i));
		Node	   *value = list_nth(call->args, i + 1);

		if (key == NULL || !es_program_builds(exprType(value)))
			return NIL;
		fields = lappend(fields, new_field(build, key, value));
	}
	return fields;
}

/*
 * new_field makes a key and the expression of its value.
 */
static EsProgramField *
new_field(EsProgramBuild *build, char *key, Node *value)
{
	EsProgramField *field = palloc0(sizeof(EsProgramField));

	field->key = key;
	field->keylen = strlen(key);
	field->type = exprType(value);
	field->eval = new_eval(build, value);
	return field;
}

/*
 * constant_text returns a text that is known; NULL if the expression is none.
 */
static char *
constant_text(Node *node)
{
	Const	   *constant = (Const *) node;

	if (!IsA(node, Const) || constant->constisnull)
		return NULL;
	if (constant->consttype == UNKNOWNOID)
		return pstrdup(DatumGetCString(constant->constvalue));
	return constant->consttype == TEXTOID ? TextDatumGetCString(constant->constvalue) : NULL;
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
 * new_eval notes an expression that is to be evaluated.
 */
static EsProgramEval
new_eval(EsProgramBuild *build, Node *expr)
{
	return (EsProgramEval)
	{
		(Expr *) expr, build->code->nevals++
	};
}
