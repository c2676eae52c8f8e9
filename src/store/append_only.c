/*
 * append_only.c
 *		The table access method append_only: heap, except that no row is ever
 *		changed or removed.
 *
 * The routine is a copy of heap's, so storage, WAL, vacuum, TOAST, locking
 * and logical decoding are heap's own.  UPDATE, DELETE, MERGE, ON CONFLICT DO
 * UPDATE, foreign-key actions and logical replication all end in tuple_update
 * or tuple_delete, below every trigger and every check of privileges, and so
 * neither a superuser nor session_replication_role gets past them.
 *
 * What DDL does to a table as a whole stays possible for its owner: DROP,
 * DETACH, a rewrite by ALTER TABLE, SET ACCESS METHOD.  Stores are guarded
 * against that by guard.c.
 */
#include "eventsrc.h"

#include "store/append_only.h"

#include "access/heapam.h"
#include "catalog/pg_am.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(es_append_only_handler);

/* heap's own routine, once es_append_only_handler() has copied it */
static const TableAmRoutine *heap_routine = NULL;

pg_noreturn static void refuse_change(Relation table, const char *action);

/*
 * refuse_change raises the error that keeps an append-only table as it is;
 * "action" completes the sentence "cannot ... append-only table".
 */
static void
refuse_change(Relation table, const char *action)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_APPEND_ONLY),
			 errmsg("cannot %s append-only table \"%s\"",
					action, RelationGetRelationName(table)),
			 errdetail("Rows of a table that uses the access method \"append_only\" are never changed or removed."),
			 errhint("To correct a row, append one that compensates for it. To remove old data, detach or drop the partition or the table that holds it."),
			 errtable(table)));
}

/*
 * refuse_update stands in for heap's tuple_update.
 */
static TM_Result
refuse_update(Relation table, ItemPointer otid, TupleTableSlot *slot,
			  CommandId cid, Snapshot snapshot, Snapshot crosscheck,
			  bool wait, TM_FailureData *tmfd, LockTupleMode *lockmode,
			  EsUpdateIndexes *update_indexes)
{
	refuse_change(table, "update");
}

/*
 * refuse_delete stands in for heap's tuple_delete.  An UPDATE that moves a
 * row to another partition arrives here too.
 */
static TM_Result
refuse_delete(Relation table, ItemPointer tid, CommandId cid,
			  Snapshot snapshot, Snapshot crosscheck, bool wait,
			  TM_FailureData *tmfd, bool changing_partition)
{
	refuse_change(table, changing_partition ? "update" : "delete from");
}

/*
 * refuse_truncate stands in for heap's relation_nontransactional_truncate: a
 * TRUNCATE in the transaction that made the table, and ON COMMIT DELETE ROWS
 * of a temporary table.  The latter is refused even while there are no rows,
 * so that it fails when the table is made and not at some later COMMIT.
 */
static void
refuse_truncate(Relation table)
{
	refuse_change(table, "truncate");
}

/*
 * set_new_storage gives a table its storage.  When the table is made, that is
 * the one its relcache entry already names; any other comes from TRUNCATE
 * (rewrites make a table of their own), and takes the rows away.
 *
 * A table without a single page has no rows to lose.  pg_restore --jobs
 * counts on that: it truncates each table that it just made before it loads
 * the rows.
 */
static void
set_new_storage(Relation table, const EsFileLocator *locator,
				char persistence, TransactionId *freeze_xid,
				MultiXactId *min_multi)
{
	if (!EsFileLocatorEquals(es_relation_locator(table), *locator) &&
		RelationGetNumberOfBlocks(table) > 0)
		refuse_change(table, "truncate");

	heap_routine->es_set_new_locator(table, locator, persistence,
									 freeze_xid, min_multi);
}

/*
 * toast_table_am names the access method of the TOAST table: heap itself,
 * whose functions read and write it directly.
 */
static Oid
toast_table_am(Relation table)
{
	return HEAP_TABLE_AM_OID;
}

/*
 * es_append_only_handler returns the access method's routine.
 */
Datum
es_append_only_handler(PG_FUNCTION_ARGS)
{
	static TableAmRoutine routine;

	if (heap_routine == NULL)
	{
		const TableAmRoutine *heap = GetHeapamTableAmRoutine();

		routine = *heap;
		routine.tuple_update = refuse_update;
		routine.tuple_delete = refuse_delete;
		routine.relation_nontransactional_truncate = refuse_truncate;
		routine.es_set_new_locator = set_new_storage;
		routine.relation_toast_am = toast_table_am;
		routine.index_build_range_scan = es_append_only_build_scan;
		routine.index_validate_scan = es_append_only_validate_scan;
		heap_routine = heap;
	}

	PG_RETURN_POINTER(&routine);
}
