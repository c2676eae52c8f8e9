/*
 * target.c
 *		A table of a store that rows are written into, by the executor's
 *		routines, outside a plan; as logical replication's apply worker does
 *		(create_edata_for_relation in PostgreSQL's worker.c).
 *
 * What the executor prepares for a table (its indexes' descriptions, the
 * conditions of its triggers and constraints, slots) is kept for the backend's
 * next append, until the store's generation changes; the relations themselves
 * are opened and locked anew each time.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "parser/parse_relation.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "append/target.h"

/* targets that a backend keeps, and slots that a kept target keeps */
#define TARGETS_KEPT	8
#define SLOTS_KEPT		100

static EsTarget *kept[TARGETS_KEPT];

/*
 * discard forgets a kept target.  After an error its memory is all that is
 * left to release: the resource owner has closed the relations.
 */
static void
discard(int i)
{
	MemoryContextDelete(kept[i]->estate->es_query_cxt);
	kept[i] = NULL;
}

/*
 * xact_callback forgets the targets that an aborted transaction was writing
 * into.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT)
		return;
	for (int i = 0; i < TARGETS_KEPT; i++)
	{
		if (kept[i] && kept[i]->busy)
			discard(i);
	}
}

/*
 * subxact_callback does so for an aborted subtransaction.  One that was opened
 * further out is still being written into.
 */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < TARGETS_KEPT; i++)
	{
		if (kept[i] && kept[i]->busy && kept[i]->opened_in == mine)
			discard(i);
	}
}

/*
 * make_target prepares a target for an open relation, in a memory context of
 * its own below the given one.
 */
static EsTarget *
make_target(EsStore *store, Relation rel, MemoryContext parent)
{
	MemoryContext old = MemoryContextSwitchTo(parent);
	EState	   *estate = CreateExecutorState();
	EsTarget   *target;
	RangeTblEntry *rte;
	List	   *perms = NIL;

	MemoryContextSwitchTo(estate->es_query_cxt);
	target = palloc0(sizeof(EsTarget));
	target->estate = estate;
	target->relid = RelationGetRelid(rel);
	target->generation = store->generation;
	target->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	target->slot_ops = table_slot_callbacks(rel);

	rte = makeNode(RangeTblEntry);
	rte->rtekind = RTE_RELATION;
	rte->relid = target->relid;
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	addRTEPermissionInfo(&perms, rte);
	es_init_range_table(estate, rte, perms);

	target->relinfo = makeNode(ResultRelInfo);
	InitResultRelInfo(target->relinfo, rel, 1, NULL, 0);
	estate->es_opened_result_relations = list_make1(target->relinfo);

	ExecOpenIndices(target->relinfo, false);
	target->nindexes = target->relinfo->ri_NumIndices;
	target->indexes = palloc(Max(target->nindexes, 1) * sizeof(Oid));
	for (int i = 0; i < target->nindexes; i++)
		target->indexes[i] = RelationGetRelid(target->relinfo->ri_IndexRelationDescs[i]);

	MemoryContextSwitchTo(old);
	return target;
}

/*
 * find_kept returns the kept target for a relation of a store, with its
 * indexes opened; NULL if there is none that is free and up to date.
 */
static EsTarget *
find_kept(EsStore *store, Relation rel)
{
	int			i = RelationGetRelid(rel) % TARGETS_KEPT;
	EsTarget   *target = kept[i];

	if (target == NULL || target->busy)
		return NULL;
	if (target->relid != RelationGetRelid(rel) || target->generation != store->generation)
	{
		discard(i);
		return NULL;
	}
	target->relinfo->ri_RelationDesc = rel;
	for (int n = 0; n < target->nindexes; n++)
		target->relinfo->ri_IndexRelationDescs[n] = index_open(target->indexes[n], RowExclusiveLock);
	return target;
}

/*
 * es_target_open opens a table of a store and its indexes for writing.
 * Triggers that the rows queue fire in es_target_close().
 */
EsTarget *
es_target_open(EsStore *store, Oid relid)
{
	static bool registered = false;
	Relation	rel = table_open(relid, RowExclusiveLock);
	EsTarget   *target = NULL;

	if (!registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterSubXactCallback(subxact_callback, NULL);
		registered = true;
	}

	/*
	 * the lock may have brought news of a change that the store has yet to
	 * read
	 */
	if (store->valid)
		target = find_kept(store, rel);
	if (target == NULL)
	{
		int			i = relid % TARGETS_KEPT;
		bool		keep = store->valid && kept[i] == NULL;

		target = make_target(store, rel, keep ? CacheMemoryContext : CurrentMemoryContext);
		target->kept = keep;
		if (keep)
			kept[i] = target;
	}
	target->rel = rel;
	target->busy = true;
	target->opened_in = GetCurrentSubTransactionId();
	target->estate->es_output_cid = GetCurrentCommandId(true);
	AfterTriggerBeginQuery();
	return target;
}

/*
 * es_target_slots returns at least count empty slots for the target's rows.
 */
TupleTableSlot **
es_target_slots(EsTarget *target, int count)
{
	if (count > target->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(target->estate->es_query_cxt);
		TupleTableSlot **slots = palloc(count * sizeof(TupleTableSlot *));

		for (int i = 0; i < count; i++)
			slots[i] = i < target->nslots ? target->slots[i] :
				MakeSingleTupleTableSlot(target->desc, target->slot_ops);
		if (target->slots)
			pfree(target->slots);
		target->slots = slots;
		target->nslots = count;
		MemoryContextSwitchTo(old);
	}
	return target->slots;
}

/*
 * es_target_store puts a row of an event into one of the target's slots, and
 * checks it.  What it points to stays the caller's.
 */
void
es_target_store(EsTarget *target, TupleTableSlot *slot, const Datum *values, const bool *nulls)
{
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, ES_NATTS * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, ES_NATTS * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	es_target_check(target, slot);
}

/*
 * es_target_check raises an error if a row breaks a constraint of the table.
 */
void
es_target_check(EsTarget *target, TupleTableSlot *slot)
{
	slot->tts_tableOid = RelationGetRelid(target->rel);
	ExecConstraints(target->relinfo, slot, target->estate);
	ResetPerTupleExprContext(target->estate);
}

/*
 * es_target_insert writes a number of rows that were checked, their index
 * entries, and queues their triggers, if they are to fire.  at (if not NULL)
 * says meanwhile at which of them it is.
 */
void
es_target_insert(EsTarget *target, TupleTableSlot **slots, int nslots,
				 BulkInsertState bulk, bool triggers, int *at)
{
	EState	   *estate = target->estate;

	if (nslots == 1)
		table_tuple_insert(target->rel, slots[0], estate->es_output_cid, 0, bulk);
	else
		table_multi_insert(target->rel, slots, nslots, estate->es_output_cid, 0, bulk);

	for (int i = 0; i < nslots; i++)
	{
		List	   *recheck;

		if (at)
			*at = i;
		recheck = es_insert_index_tuples(target->relinfo, slots[i], estate);
		if (triggers)
			ExecARInsertTriggers(estate, target->relinfo, slots[i], recheck, NULL);
		list_free(recheck);
		ResetPerTupleExprContext(estate);
	}
}

/*
 * close_trigger_targets closes what firing triggers opened.
 */
static void
close_trigger_targets(EsTarget *target)
{
	ListCell   *cell;

	foreach(cell, target->estate->es_trig_target_relations)
		table_close(((ResultRelInfo *) lfirst(cell))->ri_RelationDesc, NoLock);
	target->estate->es_trig_target_relations = NIL;
	/* these were in the tuple table */
	target->relinfo->ri_TrigOldSlot = NULL;
	target->relinfo->ri_TrigNewSlot = NULL;
}

/*
 * es_target_close fires the triggers that are due and closes the table.
 */
void
es_target_close(EsTarget *target)
{
	EState	   *estate = target->estate;

	AfterTriggerEndQuery(estate);

	for (int i = 0; i < target->nslots; i++)
		ExecClearTuple(target->slots[i]);
	ExecResetTupleTable(estate->es_tupleTable, true);
	estate->es_tupleTable = NIL;
	close_trigger_targets(target);
	for (int i = 0; i < target->nindexes; i++)
	{
		es_index_insert_cleanup(target->relinfo->ri_IndexRelationDescs[i],
								target->relinfo->ri_IndexRelationInfo[i]);
		index_close(target->relinfo->ri_IndexRelationDescs[i], NoLock);
		target->relinfo->ri_IndexRelationDescs[i] = NULL;
	}
	table_close(target->rel, NoLock);
	target->rel = NULL;
	target->busy = false;

	if (!target->kept)
		FreeExecutorState(estate);
	else if (target->nslots > SLOTS_KEPT)
	{
		/* rare, and large */
		for (int i = SLOTS_KEPT; i < target->nslots; i++)
			ExecDropSingleTupleTableSlot(target->slots[i]);
		target->nslots = SLOTS_KEPT;
	}
}
