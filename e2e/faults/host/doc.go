// Package host puts crid through the faults of the machine under it, F59 to F76: reboots, power losses, damaged records, disks that are full or cannot
// be written, logs that are moved away, limits, clocks, and mounts that somebody else takes or leaves.
//
// Each fault of the matrix, and the tests that put it in crid's way; those without its number were there before, in other folders. hack's
// TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F59   reboot: /run empty, /var kept, another boot id           TestF59F60Reboot, TestAfterAReboot, TestTheStateFolderIsLost
//	F60   reboot with leases wiped, or with /run kept              TestF59F60Reboot
//	F61   power loss at a hundred moments of a churn               TestF61PowerLoss, TestAfterAPowerFailureOnlyWhatWasSyncedIsTrusted
//	F62   every kind of damage to every kind of record             TestF62DamagedRecords, TestF62DamagedImageRecords, TestF62TwoRecordsWithOneName,
//	                                                               TestDamagedRecords, TestTwoRecordsWithOneName, TestForeignFilesInTheLedger
//	F63   the root's disk is full                                  TestF63F64F65TheRootCannotBeWritten, TestTheDiskIsFull, TestAFullDisk
//	F64   no inodes                                                TestF63F64F65TheRootCannotBeWritten
//	F65   /run full or read-only, /var read-only, fsync fails      TestF63F64F65TheRootCannotBeWritten, TestF65TheStateCannotBeWritten, TestF65FsyncFails,
//	                                                               TestAReadOnlyDisk
//	F66   the logs' disk is full                                   TestF66TheLogsDiskIsFullAndThenNot, TestTheLogsDiskIsFull, TestFullDisk
//	F67   rotation under load; a log that is a link, a pipe, a folder TestF67TheLogsPathIsNoFile, TestRotationUnderLoad, TestOnlyRegularFiles
//	F68   restart under much output                                TestF68ARestartUnderMuchOutput, TestTheLastWordsOfTheUnattended
//	F69   no more files                                            TestF69NoMoreFiles
//	F70   128 MiB of memory                                        TestF70LittleMemory
//	F71   a strained and a stopped daemon                          TestF71ADaemonThatStandsStill
//	F72   the wall clock jumps                                     TestSeeds, TestTheTimestampIsNeverOlderThanWhatIsTold
//	F73   other offsets of the monotonic clocks                    TestF73ClocksOfAnotherTimeNamespace
//	F74   two daemons on one root                                  TestTwoDaemonsOnOneRoot, TestASecondCridOnTheSameRootEndsAtOnceAndNamesTheFirst,
//	                                                               TestAKilledCridLeavesNoLockBehind
//	F75   root file system, namespace, link, bridge taken away     TestF75WhatAPodStandsOnIsTaken, TestRealInterfaceGoneBeforeDel,
//	                                                               TestRealNamespaceGoneBeforeDel
//	F76   mounts left behind in a container's folder               TestF76MountsThatAreLeftBehind, TestRemoveRootfsStopsAtAMount
//
// F61, what this kind of machine cannot do: a disk that loses or reorders single writes within a moment would need device mapper's log-writes target; moments are taken between writes.
// F72, what this kind of machine cannot do: the clock of this machine is everybody's, and a time namespace has no wall clock of its own; the simulation has one.
package host
