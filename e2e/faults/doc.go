// Package faults has no code of its own: below it are the fault tests, and here is the state table with the tests that put the system into each of
// its rows. (Record, shim, kernel: what each of the three says; the number is the row's.) Tests in folders of their own: shims, kernel, crash, host,
// net, api, registry; others are in e2e/restart, e2e/core, or beside the code. hack's TestEveryRowOfTheMatrixHasATest checks that they exist.
//
//	row 1   nothing anywhere                                       TestASweepOfNothing
//	row 2   no record; a shim that runs                            TestAStrayThatRunsIsEndedBeforeItsMountsGo, TestRecordsAreCorrupted
//	row 3   no record; a cgroup with processes                     TestAStrayThatRunsIsEndedBeforeItsMountsGo, TestTheSweepTouchesOnlyItsOwn
//	row 4   no record; mounts, namespaces, leases, files           TestTheSweepTouchesOnlyItsOwn, TestCrashesAtAnyMoment
//	row 5   reserved; nothing                                      TestRetriesJoin, TestNamesAreFreeAgain, TestCrashesAtAnyMoment
//	row 6   reserved; a shim that is not recorded                  TestShimThatNobodyRecordedIsFound, TestCrashesAtAnyMoment
//	row 7   created; nothing                                       TestACrashHurtsNoWorkload
//	row 8   created; a task that is created: not here, a task is made by the start, see row 10
//	row 9   created; the shim dead or hung                         TestF18AShimDiesDuringAStart, TestAShimIsKilled
//	row 10  starting; created                                      TestAStartThatACrashCutShort, TestF18AShimDiesDuringAStart
//	row 11  starting; it runs                                      TestAStartThatACrashCutShort, TestCrashesAtAnyMoment
//	row 12  starting; it has ended                                 TestAStartThatACrashCutShort
//	row 13  running; as it should be                               TestACrashHurtsNoWorkload
//	row 14  running; gone, and the shim does not notice            TestF36AHungRuncKillPoisonsTheShim
//	row 15  running; ended                                         TestExitCodesAreTrue, TestF30ExitsWhileCridIsDown
//	row 16  running; ended, and the shim knows no such task        TestTheShimHasForgottenAContainerThatEnded
//	row 17  running; alive, and the runtime knows no such task     TestTheRuntimesStateIsWiped, TestAShimThatKnowsNoTaskEndsNothing
//	row 18  running; alive, the shim hangs                         TestF21AShimThatHangsForGood, TestAShimHangs
//	row 19  running; gone, the shim hangs                          TestF21AShimThatHangsForGood
//	row 20  running; alive, the shim is dead                       TestF17AShimIsKilledUnderThreeContainersAnExecAndAPortForward
//	row 21  running; gone, the shim is dead                        TestF29ShimAndMembersDieWhileCridIsDown
//	row 22  running; another shim at the address                   TestImpostorAtADeadShimsAddress, TestAdoptWantsTheSameProcess
//	row 23  running; its cgroup is taken away                      TestACgroupThatIsTakenAway
//	row 24  running; frozen                                        TestF45AFrozenContainer
//	row 25  running; the pid is a stranger's                       TestF56PidsAreGivenAway
//	row 26  running; the main process gone, others not             TestF52ChildrenThatOutliveTheMainProcess
//	row 27  stopping; the caller gone                              TestAStopGoesOnWithoutItsCaller
//	row 28  stopping; it cannot be killed                          TestF43AProcessThatCannotBeKilled
//	row 29  stopping; crid restarts                                TestACrashInTheMiddleOfAStop
//	row 30  exited; the task is there                              TestRuncCannotDelete
//	row 31  exited; a process lives                                TestAProcessInTheCgroupOfAnExitedContainer
//	row 32  exited; mounts, cgroups, pipes are left                TestRuncCannotDelete, TestCrashesDuringRemoval
//	row 33  removing; crid restarts                                TestCrashesDuringRemoval
//	row 34  running; the root file system unmounted from outside   TestMountsThatSomebodyElseTakesAway
//	row 35  ready; its network namespace is gone                   TestMountsThatSomebodyElseTakesAway
//	row 36  ready; the sandbox process gone, containers live       TestTheSandboxProcessIsKilled
//	row 37  stopped; the network cannot be given back              TestANetworkThatCannotBeDeleted
//	row 38  damaged record; it runs                                TestRecordsAreCorrupted, TestDamagedRecords
//	row 39  damaged record; nothing                                TestDamagedRecords, TestThingsThatAreNoRecordsAreSetAside
//	row 40  records of another boot                                TestAfterAReboot, TestTheStateFolderIsLost
//	row 41  two records of one name                                TestTwoRecordsWithOneName, TestTwoContainersWithOneName
//	row 42  images without layers, layers without images           TestWhatACrashLeavesIsRepairedAtStart
//
// In row 38 crid does otherwise than the table, which has such a container rebuilt or shown as UNKNOWN: what runs without a record that can be read
// is ended before its mounts go, the record is set aside, and the kubelet makes the pod anew.
package faults
