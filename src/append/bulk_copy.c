/*
 * bulk_copy.c
 *		COPY FROM into a store's events, many rows at a time: see bulk.c.
 *
 * Reading and parsing are PostgreSQL's, as it offers them to foreign-data
 * wrappers.  Whatever is out of the ordinary (conditions, options about errors,
 * privileges that are missing) is left to its own COPY.
 */
#include "eventsrc.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/copy.h"
#include "commands/copyfrom_internal.h"
#include "commands/progress.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_relation.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/backend_progress.h"
#include "utils/rel.h"

#include "append/bulk.h"

/* what the error context needs */
typedef struct CopyIn
{
	CopyFromState state;
	EsBulk		bulk;
} CopyIn;

/*
 * is_ordinary tells whether a COPY asks for nothing but to read and parse.
 */
static bool
is_ordinary(const CopyStmt *copy)
{
	static const char *const options[] = {
		"format", "delimiter", "null", "default", "header", "quote", "escape",
		"force_not_null", "force_null", "encoding"
	};
	ListCell   *cell;

	if (!copy->is_from || copy->relation == NULL || copy->whereClause != NULL)
		return false;
	foreach(cell, copy->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);
		bool		known = false;

		for (int i = 0; i < lengthof(options); i++)
			known = known || strcmp(option->defname, options[i]) == 0;
		if (!known)
			return false;
	}
	return true;
}

/*
 * may_read tells whether the current user may read what a COPY reads.
 */
static bool
may_read(const CopyStmt *copy)
{
	if (copy->filename == NULL)
		return true;
	return has_privs_of_role(GetUserId(), copy->is_program ? ROLE_PG_EXECUTE_SERVER_PROGRAM
							 : ROLE_PG_READ_SERVER_FILES);
}

/*
 * has_harmless_defaults tells whether no column's default might look at the rows
 * that were inserted.
 */
static bool
has_harmless_defaults(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	for (int i = 0; constr && i < constr->num_defval; i++)
	{
		if (!es_bulk_harmless(stringToNode(constr->defval[i].adbin)))
			return false;
	}
	return true;
}

/*
 * check_permission raises an error unless the current user may insert into the
 * columns of a COPY.  Security modules that watch queries are asked too.
 */
static void
check_permission(ParseState *pstate, Relation rel, List *names)
{
	ParseNamespaceItem *item = addRangeTableEntryForRelation(pstate, rel, RowExclusiveLock,
															 NULL, false, false);
	Bitmapset  *columns = NULL;
	ListCell   *cell;

	foreach(cell, CopyGetAttnums(RelationGetDescr(rel), rel, names))
		columns = bms_add_member(columns, lfirst_int(cell) - FirstLowInvalidHeapAttributeNumber);
	es_check_insert_permission(pstate, item, columns);
}

/*
 * add_context tells where in the input an error came up; of rows that waited,
 * that is not where it is read.
 */
static void
add_context(void *arg)
{
	CopyIn	   *in = arg;
	CopyFromState state = in->state;
	uint64		line = state->cur_lineno;
	bool		valid = state->line_buf_valid;

	if (in->bulk.at >= 0)
	{
		state->cur_lineno = in->bulk.lines[in->bulk.at];
		state->line_buf_valid = false;
	}
	CopyFromErrorCallback(state);
	state->cur_lineno = line;
	state->line_buf_valid = valid;
}

/*
 * copy_rows reads all rows and has them written; returns their number.
 */
static uint64
copy_rows(CopyIn *in, EsStore *store)
{
	EState	   *estate = CreateExecutorState();
	ExprContext *econtext = GetPerTupleExprContext(estate);
	MemoryContext outer = CurrentMemoryContext;
	ErrorContextCallback callback;
	Datum		values[ES_NATTS];
	bool		nulls[ES_NATTS];
	uint64		rows = 0;

	callback.callback = add_context;
	callback.arg = in;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	es_bulk_begin(&in->bulk, store, true);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		ResetPerTupleExprContext(estate);
		MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
		if (!NextCopyFrom(in->state, econtext, values, nulls))
			break;
		es_bulk_add(&in->bulk, values, nulls, in->state->cur_lineno);
		MemoryContextSwitchTo(outer);
		pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, (int64) ++rows);
	}
	MemoryContextSwitchTo(outer);
	es_bulk_flush(&in->bulk);
	error_context_stack = callback.previous;
	es_bulk_end(&in->bulk);
	FreeExecutorState(estate);
	return rows;
}

/*
 * es_bulk_copy runs a COPY, if it is an ordinary one into a store's events; false
 * if it is not.
 */
bool
es_bulk_copy(const CopyStmt *copy, const char *query, QueryCompletion *completion)
{
	Relation	rel;
	EsStore    *store = NULL;
	ParseState *pstate;
	CopyIn	   *in;
	uint64		rows;

	if (!is_ordinary(copy) || !may_read(copy) || XactReadOnly || IsInParallelMode())
		return false;
	rel = table_openrv_extended(copy->relation, RowExclusiveLock, true);
	if (rel && rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		store = es_store_of_relation(RelationGetRelid(rel));
	if (store == NULL || !es_bulk_usable(store) || !has_harmless_defaults(rel))
	{
		if (rel)
			table_close(rel, NoLock);
		return false;
	}

	pstate = make_parsestate(NULL);
	pstate->p_sourcetext = query;
	check_permission(pstate, rel, copy->attlist);
	in = palloc(sizeof(CopyIn));
	in->state = BeginCopyFrom(pstate, rel, NULL, copy->filename, copy->is_program, NULL,
							  copy->attlist, copy->options);
	rows = copy_rows(in, store);
	EndCopyFrom(in->state);
	table_close(rel, NoLock);
	free_parsestate(pstate);
	if (completion)
		SetQueryCompletion(completion, CMDTAG_COPY, rows);
	return true;
}
