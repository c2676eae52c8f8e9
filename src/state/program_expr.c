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
static int	selected_column(EsProgramBuild *build, FieldSelect *select);
static Node *new_param(int id, Node *expr);
static Node *adapt_key(EsProgramBuild *build, Node *node, EsProgramLook look, Oid function, List *args);
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
	Node	   *key = NULL;
	Oid			function;
	List	   *args;
	int			id;

	if (node == NULL || build->failed)
		return NULL;
	if (IsA(node, Param))
		return adapt_param(build, (Param *) node);
	id = IsA(node, FieldSelect) ? selected_column(build, (FieldSelect *) node) : 0;
	if (id > 0)
	{
		FieldSelect *select = (FieldSelect *) node;

		if (TupleDescAttr(es_event_tupdesc(), select->fieldnum - 1)->atttypid != select->resulttype)
			build->failed = true;
		return new_param(id, node);
	}
	if (IsA(node, CoerceViaIO) && ((CoerceViaIO *) node)->resulttype == NUMERICOID &&
		find_call((Node *) ((CoerceViaIO *) node)->arg, &function, &args) &&
		function == F_JSONB_OBJECT_FIELD_TEXT &&
		!is_forbidden(F_TEXTOUT, build) && !is_forbidden(F_NUMERIC_IN, build))
		key = adapt_key(build, node, ES_LOOK_NUMERIC, function, args);
	else if (find_call(node, &function, &args) && function == F_JSONB_OBJECT_FIELD)
		key = adapt_key(build, node, ES_LOOK_JSONB, function, args);
	else if (find_call(node, &function, &args) && function == F_JSONB_OBJECT_FIELD_TEXT)
		key = adapt_key(build, node, ES_LOOK_TEXT, function, args);
	if (key)
		return key;
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
 * selected_column returns the Param of the event's column that is selected; 0 if
 * it is of another row.
 */
static int
selected_column(EsProgramBuild *build, FieldSelect *select)
{
	Param	   *row = (Param *) select->arg;

	if (!IsA(row, Param) || row->paramkind != PARAM_EXTERN ||
		select->fieldnum < 1 || select->fieldnum > ES_NATTS ||
		build->find_param(build, row) != ES_PARAM_EVENT)
		return 0;
	return ES_PARAM_COLUMN + select->fieldnum - 1;
}

/*
 * new_param makes a Param that stands for an expression.
 */
static Node *
new_param(int id, Node *expr)
{
	Param	   *result = makeNode(Param);

	result->paramkind = PARAM_EXTERN;
	result->paramid = id;
	result->paramtype = exprType(expr);
	result->paramtypmod = exprTypmod(expr);
	result->paramcollid = exprCollation(expr);
	result->location = -1;
	return (Node *) result;
}

/*
 * adapt_key makes a Param of a look at a key of the state, which needs not be
 * written for that, or of one of the event's columns; NULL if it is at another
 * jsonb.
 */
static Node *
adapt_key(EsProgramBuild *build, Node *node, EsProgramLook look, Oid function, List *args)
{
	Node	   *object = linitial(args);
	Const	   *key = lsecond(args);
	EsProgramParam *other;
	int			of = 0;
	int			id;

	if (IsA(object, Param) && ((Param *) object)->paramkind == PARAM_EXTERN)
		of = build->find_param(build, (Param *) object);
	else if (IsA(object, FieldSelect))
		of = selected_column(build, (FieldSelect *) object);
	if (of != ES_PARAM_STATE &&
		(of < ES_PARAM_COLUMN || of >= ES_PARAM_OTHER ||
		 TupleDescAttr(es_event_tupdesc(), of - ES_PARAM_COLUMN)->atttypid != JSONBOID))
		return NULL;
	if (!IsA(key, Const) || key->constisnull || is_forbidden(function, build))
		return NULL;
	id = es_program_add_param(build->code, exprType(node));
	other = &build->code->others[id - ES_PARAM_OTHER];
	other->key = TextDatumGetCString(key->constvalue);
	other->keylen = strlen(other->key);
	other->of = of;
	other->look = look;
	return new_param(id, node);
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
	if (IsA(value, Param) && ((Param *) value)->paramid >= ES_PARAM_OTHER)
	{
		EsProgramParam *param = &build->code->others[((Param *) value)->paramid - ES_PARAM_OTHER];

		if (param->key && param->look == ES_LOOK_JSONB)
			field->looks = ((Param *) value)->paramid;
	}
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
