/*
 * depend.c
 *		Describes a function with all that it calls, so that a hash of the
 *		description changes when any of it does.
 *
 * pg_depend knows what SQL-standard bodies use, and the types of arguments.  Of
 * other bodies, which are text, every name before a parenthesis is taken for a
 * call of all the functions of that name, in whatever schema.  That can be too
 * many, which does no harm: then a change of one more function counts.
 * Functions of the system itself do not change, and data in tables is not seen.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "schema/depend.h"
#include "store/store.h"

/* functions that are followed at most */
#define MAX_FUNCTIONS	1000

typedef struct Walk
{
	List	   *functions;		/* OIDs of those seen */
	List	   *types;			/* OIDs of composite types seen */
	List	   *tables;			/* OIDs of their relations */
	List	   *texts;			/* descriptions */
} Walk;

static void walk_function(Walk *walk, Oid function);

/*
 * walk_type describes a composite type's columns, and those of their types.
 */
static void
walk_type(Walk *walk, Oid type)
{
	TupleDesc	desc;
	StringInfoData text;

	check_stack_depth();
	if (type < FirstNormalObjectId)
		return;
	if (OidIsValid(get_element_type(type)))
		type = get_element_type(type);
	if (type == es_event_type() || get_typtype(type) != TYPTYPE_COMPOSITE ||
		list_member_oid(walk->types, type))
		return;
	walk->types = lappend_oid(walk->types, type);
	walk->tables = lappend_oid(walk->tables, get_typ_typrelid(type));

	initStringInfo(&text);
	appendStringInfo(&text, "%s:\n", format_type_be_qualified(type));
	desc = lookup_rowtype_tupdesc_copy(type, -1);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped)
			continue;
		appendStringInfo(&text, "%s %s\n", NameStr(column->attname),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
		walk_type(walk, column->atttypid);
	}
	walk->texts = lappend(walk->texts, text.data);
}

/*
 * walk_catalog follows what pg_depend says that a function uses.
 */
static void
walk_catalog(Walk *walk, Oid function)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *functions = NIL;
	List	   *types = NIL;
	ListCell   *cell;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ProcedureRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(function));
	scan = systable_beginscan(rel, DependDependerIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (depend->refclassid == ProcedureRelationId)
			functions = lappend_oid(functions, depend->refobjid);
		else if (depend->refclassid == TypeRelationId)
			types = lappend_oid(types, depend->refobjid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	foreach(cell, functions)
		walk_function(walk, lfirst_oid(cell));
	foreach(cell, types)
		walk_type(walk, lfirst_oid(cell));
}

/*
 * walk_name follows all functions of a name, but temporary ones, which are only
 * called where their schema is spelled out.
 */
static void
walk_name(Walk *walk, const char *name)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	List	   *functions = NIL;
	ListCell   *cell;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc procedure = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (procedure->oid >= FirstNormalObjectId && !isAnyTempNamespace(procedure->pronamespace))
			functions = lappend_oid(functions, procedure->oid);
	}
	ReleaseCatCacheList(list);
	foreach(cell, functions)
		walk_function(walk, lfirst_oid(cell));
}

/*
 * is_name_char tells whether a byte can be in a name that is not quoted.
 */
static bool
is_name_char(unsigned char c)
{
	return isalnum(c) || c == '_' || c == '$' || c >= 0x80;
}

/*
 * walk_body follows the names before parentheses in a function's body.
 */
static void
walk_body(Walk *walk, const char *body)
{
	const char *at = body;

	while (*at)
	{
		const char *begin = at;
		StringInfoData name;
		char	   *word;

		if (*at != '"' && !is_name_char((unsigned char) *at))
		{
			at++;
			continue;
		}
		CHECK_FOR_INTERRUPTS();
		initStringInfo(&name);
		if (*at == '"')
		{
			for (at++; *at && (*at != '"' || at[1] == '"'); at++)
			{
				if (*at == '"')
					at++;
				appendStringInfoChar(&name, *at);
			}
			if (*at)
				at++;
			word = name.data;
			truncate_identifier(word, name.len, false);
		}
		else
		{
			while (is_name_char((unsigned char) *at))
				at++;
			word = downcase_truncate_identifier(begin, at - begin, false);
		}
		begin = at + strspn(at, " \t\r\n");
		if (*begin == '(' && word[0] != '\0')
			walk_name(walk, word);
	}
}

/*
 * walk_function describes a function, and those that it calls.
 */
static void
walk_function(Walk *walk, Oid function)
{
	HeapTuple	tuple;
	Form_pg_proc procedure;
	Datum		source;
	bool		isnull;
	char	   *body = NULL;
	char	   *definition;

	check_stack_depth();
	if (function < FirstNormalObjectId || list_member_oid(walk->functions, function) ||
		list_length(walk->functions) >= MAX_FUNCTIONS)
		return;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return;
	walk->functions = lappend_oid(walk->functions, function);
	procedure = (Form_pg_proc) GETSTRUCT(tuple);
	if (procedure->prolang != INTERNALlanguageId && procedure->prolang != ClanguageId &&
		heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL))
	{
		source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
		if (!isnull)
			body = TextDatumGetCString(source);
	}
	if (procedure->prokind == PROKIND_AGGREGATE)
		definition = format_procedure_qualified(function);
	else
		definition = TextDatumGetCString(OidFunctionCall1(F_PG_GET_FUNCTIONDEF,
														  ObjectIdGetDatum(function)));
	ReleaseSysCache(tuple);

	walk->texts = lappend(walk->texts, definition);
	walk_catalog(walk, function);
	if (body)
		walk_body(walk, body);
}

/*
 * compare_texts orders descriptions, as the catalogs have no order that a
 * restore keeps.
 */
static int
compare_texts(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * es_describe_function appends the definition of a function and of all that it
 * depends on; search_path must be fixed.  Relations whose columns are part of it
 * are added to tables, unless that is NULL.
 */
void
es_describe_function(StringInfo to, Oid function, List **tables)
{
	Walk		walk = {NIL};
	ListCell   *cell;

	walk_function(&walk, function);
	list_sort(walk.texts, compare_texts);
	foreach(cell, walk.texts)
		appendStringInfo(to, "%s\n", (char *) lfirst(cell));
	if (tables)
		*tables = list_concat(*tables, walk.tables);
}
