/*
 * bulk.c
 *		Writes what INSERT ... SELECT and COPY bring to an events table many rows
 *		at a time, as COPY does for tables without a trigger before each row.
 *
 * Each row is checked and filled in by the code of that trigger (row.c), when it
 * comes; then it waits, up to ES_BULK_ROWS of them, and is written with the
 * others.  So nobody may look for a row while it waits:
 *
 *	- Where a stream stands is remembered (known.c), and the waiting rows are
 *	  counted there.  If that was forgotten meanwhile (somebody else appended, a
 *	  subtransaction was rolled back, there were too many streams, a row closed
 *	  its stream), they are written before a stream is looked up.
 *	- A function that the query calls could read the table.  What a stable one
 *	  reads is older than the statement; with volatile ones, other than a few
 *	  that read no table, all goes by the executor and the trigger.
 *	- Triggers before each row of the user's, row security and the like go by the
 *	  executor too: see es_bulk_usable().
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "append/bulk.h"

/* slots are made as they are needed, so many at first */
#define FIRST_SLOTS		64

bool		es_setting_bulk_insert = true;

/*
 * es_bulk_usable tells whether rows may be written into a store many at a time,
 * by the current user and now.
 */
bool
es_bulk_usable(EsStore *store)
{
	return es_setting_bulk_insert && es_pending == NULL &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA &&
		!es_append_by_executor(store);
}

/*
 * may_look tells whether a function might look at the rows that were inserted.
 */
static bool
may_look(Oid function, void *context)
{
	switch (function)
	{
		case F_NEXTVAL:
		case F_CLOCK_TIMESTAMP:
		case F_GEN_RANDOM_UUID:
		case ES_F_RANDOM:
			return false;
		default:
			return func_volatile(function) == PROVOLATILE_VOLATILE;
	}
}

/*
 * find_looking finds a function in an expression or query that might.
 */
static bool
find_looking(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, may_look, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_looking, context, 0);
	return expression_tree_walker(node, find_looking, context);
}

/*
 * es_bulk_harmless tells whether nothing in an expression or query might look at
 * the rows that were inserted.
 */
bool
es_bulk_harmless(Node *node)
{
	return !find_looking(node, NULL);
}

/*
 * es_bulk_begin prepares for rows that go into a store's events, which is
 * locked.
 */
void
es_bulk_begin(EsBulk *bulk, EsStore *store, bool copy)
{
	bulk->store = store;
	bulk->context = CurrentMemoryContext;
	bulk->bistate = copy ? GetBulkInsertState() : NULL;
	bulk->target = NULL;
	bulk->nrows = 0;
	bulk->bytes = 0;
	bulk->at = -1;
	bulk->resets = es_known_resets;
}

/*
 * es_bulk_flush writes the rows that wait.
 */
void
es_bulk_flush(EsBulk *bulk)
{
	int			nrows = bulk->nrows;
	TupleTableSlot **slots;

	bulk->resets = es_known_resets;
	if (nrows == 0)
		return;
	slots = es_target_slots(bulk->target, nrows);
	bulk->nrows = 0;
	bulk->bytes = 0;
	bulk->at = 0;
	es_target_insert(bulk->target, slots, nrows, bulk->bistate, true, &bulk->at);
	bulk->at = -1;
}

/*
 * es_bulk_before_look is called before the stream with a hash, of which nothing
 * is known that can be relied on, is looked up: writes the rows that wait, if one
 * of them may be the stream's.
 */
void
es_bulk_before_look(EsBulk *bulk, uint64 hash)
{
	if (bulk->resets != es_known_resets || es_known_holds(hash))
		es_bulk_flush(bulk);
}

/*
 * close_target writes the rows that wait, has triggers fire that are due after
 * their rows, and closes the partition.
 */
static void
close_target(EsBulk *bulk)
{
	es_bulk_flush(bulk);
	if (bulk->target == NULL)
		return;
	if (bulk->bistate)
		ReleaseBulkInsertStatePin(bulk->bistate);
	es_target_close(bulk->target);
	bulk->target = NULL;
}

/*
 * turn_to makes the partition of a moment the one that is written into; if there
 * was another, its triggers fire before the statement ends.
 */
static void
turn_to(EsBulk *bulk, TimestampTz at)
{
	MemoryContext old;

	close_target(bulk);
	old = MemoryContextSwitchTo(bulk->context);
	bulk->partition = *es_store_partition(bulk->store, at);
	bulk->target = es_target_open(bulk->store, bulk->partition.relid);
	MemoryContextSwitchTo(old);
}

/*
 * route finds the partition of a row, by the time that it was given.  A time that
 * is not the present one is refused when the row is filled in, and makes no
 * partition.
 */
static void
route(EsBulk *bulk, Datum *values, bool *nulls)
{
	TimestampTz at = DatumGetTimestampTz(values[ES_ATT_RECORDED_AT - 1]);
	bool		given = !nulls[ES_ATT_RECORDED_AT - 1];

	if (given && bulk->target && at >= bulk->partition.lower && at < bulk->partition.upper)
		return;
	if (!given || es_store_find_partition(bulk->store, at) < 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (!given || at > now || at < GetCurrentTransactionStartTimestamp())
			at = now;
	}
	turn_to(bulk, at);
}

/*
 * next_slot returns the slot for the next row.
 */
static TupleTableSlot *
next_slot(EsBulk *bulk)
{
	if (bulk->nrows >= bulk->target->nslots)
		(void) es_target_slots(bulk->target, Min(Max(2 * bulk->nrows, FIRST_SLOTS), ES_BULK_ROWS));
	return bulk->target->slots[bulk->nrows];
}

/*
 * es_bulk_add takes a row, in the columns of events, and makes it an append; fills
 * in the arrays.  The caller's memory context is one for a single row.
 */
void
es_bulk_add(EsBulk *bulk, Datum *values, bool *nulls, uint64 line)
{
	EsRow		row = {NULL, values, nulls, bulk};
	TupleTableSlot *slot;
	EsTarget   *target;

	if (!bulk->store->valid)
		es_store_refresh(bulk->store);
	route(bulk, values, nulls);
	target = bulk->target;
	row.desc = RelationGetDescr(target->rel);
	if (!es_row_fill(&row, bulk->store, &bulk->partition, true))
		return;

	slot = next_slot(bulk);
	es_target_store(target, slot, values, nulls);
	/* what it points to is the caller's */
	ExecMaterializeSlot(slot);

	bulk->lines[bulk->nrows++] = line;
	bulk->bytes += ((HeapTupleTableSlot *) slot)->tuple->t_len;
	if (bulk->nrows == ES_BULK_ROWS || bulk->bytes >= ES_BULK_BYTES)
		es_bulk_flush(bulk);
}

/*
 * es_bulk_end writes what is left, and has the triggers fire that are due.
 */
void
es_bulk_end(EsBulk *bulk)
{
	close_target(bulk);
	if (bulk->bistate)
		FreeBulkInsertState(bulk->bistate);
}
